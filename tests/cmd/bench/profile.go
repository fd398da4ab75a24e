package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// profileLength is how much time one profile covers.
const profileLength = 3 * time.Second

// profile writes profiles of what the processor does in a program into a directory, until the program ends:
// "go tool pprof" merges them.
func profile(ops, dir string) {
	for {
		if err := profileOnce(ops, dir); err != nil {
			return // it has ended
		}
	}
}

func profileOnce(ops, dir string) error {
	resp, err := http.Get(fmt.Sprintf("%s/debug/pprof/profile?seconds=%.0f", ops, profileLength.Seconds()))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s", resp.Status)
	}
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "*.pprof")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// profileLength is the duration covered by one profile.
const profileLength = 3 * time.Second

// profile writes CPU profiles of a program to a directory until the program exits: "go tool pprof" merges them.
func profile(ops, dir string) {
	for {
		if err := profileOnce(ops, dir); err != nil {
			return // the program has exited
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

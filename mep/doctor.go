package mep

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/openmep/mep/mep/doctor"
)

// doctorCommand returns the command that examines an installation.
func doctorCommand(s *Spec) *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for faults in the installation and say what to do; the exit code is 0 when nothing failed",
		Long: "doctor looks at the settings, the data directory, certificates, clocks, ports, etcd, tokens, a running platform and the\n" +
			"limits of the machine, and prints a line for each finding. It changes nothing. Give it the settings of the platform, and\n" +
			"run it as the platform's user.",
		Args: cobra.NoArgs,
	}
	s.AddFlags(cmd)
	cmd.Flags().Bool("json", false, "print a JSON array of objects with check, level (ok, note, warn, fail), subject, finding and remedy")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		asJSON, err := cmd.Flags().GetBool("json")
		if err != nil {
			return err
		}
		src := s.Sources(cmd)
		var report doctor.Report
		if cfg, err := s.Load(src); err != nil {
			report = doctor.Misconfigured(src.File, err)
		} else {
			report = doctor.Examine(cmd.Context(), doctor.Installation{
				Common: &cfg.Common, Server: &cfg.Server, Auth: &cfg.Auth, DNS: &cfg.DNS, Gateway: &cfg.Gateway, Reserve: cfg.DiskReserve, Quota: cfg.DiskQuota,
				File: src.File, LockFile: lockFile(cfg.Common.DataDir),
			})
		}
		write := report.WriteText
		if asJSON {
			write = report.WriteJSON
		}
		if err := write(cmd.OutOrStdout()); err != nil {
			return err
		}
		if n := report.Faults(); n > 0 {
			return fmt.Errorf("faults found: %d", n)
		}
		return nil
	}
	return cmd
}

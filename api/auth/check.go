package auth

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/signing"
)

// Bounds on the members of requests.
const (
	// MaxAppName is the maximum length of an appName in bytes.
	MaxAppName = 128
	// MaxRequiredServices is the maximum number of requiredServices.
	MaxRequiredServices = 256
	// MaxServiceName is the maximum length of each of the requiredServices in bytes.
	MaxServiceName = 128
	// MaxOverlapSeconds is the longest time a previous secret key may stay valid: 30 days.
	MaxOverlapSeconds = 30 * 24 * 60 * 60
)

// Check validates c as the body of a request and adds all its faults to faults.
func (c *Confs) Check(faults *problem.InvalidParams) {
	keys := c.AuthInfo.Credentials
	if keys.AccessKeyID != "" && !signing.ValidAccessKeyID(keys.AccessKeyID) {
		faults.Add("authInfo.credentials.accessKeyId", keyFault(signing.AccessKeyIDLength))
	}
	checkSecretKey("authInfo.credentials.secretKey", keys.SecretKey, faults)
	checkText("appInfo.appName", c.AppInfo.AppName, MaxAppName, faults)
	if len(c.AppInfo.RequiredServices) > MaxRequiredServices {
		faults.Add("appInfo.requiredServices", fmt.Sprintf("has more than %d elements", MaxRequiredServices))
		return
	}
	for i, name := range c.AppInfo.RequiredServices {
		path := fmt.Sprintf("appInfo.requiredServices[%d]", i)
		if name == "" {
			addOnce(path, "is empty", faults)
			continue
		}
		checkText(path, name, MaxServiceName, faults)
	}
}

// Check validates p as the body of a request and adds all its faults to faults.
func (p *ConfsPatch) Check(faults *problem.InvalidParams) {
	// A member whose type was already refused is not missing.
	if len(*faults) == 0 && p.Enabled == nil && p.RefreshTokens == nil && p.BindClientAddress == nil {
		faults.Add("enabled", "is required, or refreshTokens or bindClientAddress instead: at least one of them")
	}
}

// Check validates r as the body of a request and adds all its faults to faults.
func (r *Rotation) Check(faults *problem.InvalidParams) {
	checkSecretKey("secretKey", r.SecretKey, faults)
	if s := r.OverlapSeconds; s != nil && (*s < 0 || *s > MaxOverlapSeconds) {
		faults.Add("overlapSeconds", fmt.Sprintf("must be 0 to %d", MaxOverlapSeconds))
	}
}

func checkSecretKey(path string, key Secret, faults *problem.InvalidParams) {
	if key != "" && !signing.ValidSecretKey(string(key)) {
		faults.Add(path, keyFault(signing.SecretKeyLength))
	}
}

// addOnce adds a fault unless the member already has one, such as a wrong type.
func addOnce(path, reason string, faults *problem.InvalidParams) {
	if !slices.ContainsFunc(*faults, func(f problem.InvalidParam) bool { return f.Name == path }) {
		faults.Add(path, reason)
	}
}

func keyFault(length int) string {
	return fmt.Sprintf(`must be %d letters, digits and characters of "_+/="; absent, one is generated`, length)
}

func checkText(path, value string, limit int, faults *problem.InvalidParams) {
	switch {
	case len(value) > limit:
		faults.Add(path, fmt.Sprintf("is longer than %d bytes", limit))
	case strings.ContainsFunc(value, unicode.IsControl):
		faults.Add(path, "contains a control character")
	}
}

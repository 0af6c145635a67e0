package forward

import (
	"strings"
	"testing"
)

// fault: H8
func TestSpecsAreReadAsSSHReadsThem(t *testing.T) {
	for in, want := range map[string]string{
		"8080:localhost:80":            "127.0.0.1:8080 localhost:80", // loopback unless something else is asked for
		":8080:LocalHost.:080":         "127.0.0.1:8080 localhost:80",
		"0:127.0.0.1:80":               "127.0.0.1:0 127.0.0.1:80",
		"0.0.0.0:8080:10.0.0.1:80":     "0.0.0.0:8080 10.0.0.1:80",
		"*:8080:10.0.0.1:80":           "*:8080 10.0.0.1:80",
		"[::1]:8080:[2001:DB8:0::1]:1": "[::1]:8080 [2001:db8::1]:1",
		"8080:[::ffff:10.0.0.1]:80":    "127.0.0.1:8080 10.0.0.1:80",
		"/run/a.sock:db.lan:5432":      "/run/a.sock db.lan:5432",
		"5432:/run/db.sock":            "127.0.0.1:5432 /run/db.sock",
		"[::1]:5432:/run/db.sock":      "[::1]:5432 /run/db.sock",
		"/run/a.sock:/run/db.sock":     "/run/a.sock /run/db.sock",
	} {
		sp, err := ParseSpec(in)
		if got := sp.Listen.Addr + " " + sp.Target.Addr; err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "80", "80:host", "80:host:", "80::80", "80:host:0", "80:host:65536", "-1:host:80", "80:host:http",
		"a:b:80:host:80", "80:*:80", "80:ho st:80", "80:[::1:80", "80:::1]:80", "80:host:*", "/a:b:c:80", "b:/a:c:80",
		"80:/" + strings.Repeat("x", maxPath), "80:ho\x1bst:80", "80:host\u202e:80", "80:h%eth0:80", "80:" + strings.Repeat("h", 254) + ":80",
		"\xff:host:80", "80:..:80", "80:.:80", "80:host..:80", "80:.host:80", "80:a..b:80",
	} {
		if sp, err := ParseSpec(in); err == nil {
			t.Errorf("%q was taken as %+v", in, sp)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, s := range []string{"8080:localhost:80", "*:1:[::1]:2", "/a:/b", "[::1]:5:/x", ":::", "[:]", "0:..:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sp, err := ParseSpec(s)
		if err != nil {
			return
		}
		target, err := ParseAddress(sp.Target.Addr)
		if err != nil || target != sp.Target {
			t.Errorf("the target of %q: %+v is read as %+v, %v", s, sp.Target, target, err)
		}
		if where, err := parse(sp.Listen.Addr, toListen); err != nil || where != sp.Listen {
			t.Errorf("the listener of %q: %+v is read as %+v, %v", s, sp.Listen, where, err)
		}
	})
}

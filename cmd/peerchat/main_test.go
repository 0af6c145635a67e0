package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if os.Getenv(runMainEnv) != "" { // a child of the demo
		main()
	}
	testscript.Main(m, map[string]func(){"peerchat": main})
}

func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_DATA_HOME", e.WorkDir+"/data")
			e.Setenv("PEERCHAT_BOOTSTRAP", "")
			e.Setenv(noDaemonEnv, "1")                    // scripts of the daemon unset it, and stop what they start
			e.Setenv("XDG_RUNTIME_DIR", e.WorkDir+"/run") // devices here must not meet those of whoever runs the tests
			return os.Mkdir(e.WorkDir+"/run", 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"awaitline": awaitLine,
			"enddaemon": endDaemon,
			"converse":  converse,
			"start":     start,
			"webserver": webServer,
		},
	})
}

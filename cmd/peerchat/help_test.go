package main

import (
	"maps"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestEachCommandHasItsHelpAndEachHelpItsCommand(t *testing.T) {
	left := maps.Clone(helpOf())
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		_, path, _ := strings.Cut(c.CommandPath(), " ")
		h, ok := left[path]
		delete(left, path)
		if ok && (c.Use != h.use || c.Short != h.short || c.Long != h.long || c.Example != h.examples) {
			t.Errorf("%s does not say what stands in help.txt", c.CommandPath())
		}
		if c.Short == "" || !strings.HasPrefix(c.Use, c.Name()) || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: usage %q, in short %q", c.CommandPath(), c.Use, c.Short)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	root := newRoot()
	root.InitDefaultHelpCmd()
	walk(root)
	for path := range left {
		t.Errorf("help.txt describes %q, which is no command", path)
	}
}

package main

import (
	"errors"
	"fmt"
	"strings"

	"peerlink"
	"peerlink/cmd/peerchat/internal/chat"
	"peerlink/cmd/peerchat/internal/files/parcel"
	"peerlink/cmd/peerchat/internal/forward"
	"peerlink/identity"
)

// forwardScheme begins the URIs of forwards.
var forwardScheme = strings.TrimSuffix(forward.Pattern, "*")

// messageScheme begins the URI of messages.
var messageScheme = strings.TrimSuffix(chat.URI, "1")

// nobodyThere tells, by the scheme of a channel on which nobody listens, what has
// to run on the other device. A %s stands for the rest of the URI.
var nobodyThere = map[string]string{
	pipeScheme:    "the device is there, but no pipe of that name listens on it: peerchat pipe --listen --name %s has to run there first, once for each device that joins",
	messageScheme: "the device is there, but takes no messages now: peerchat run has to hold the account there",
	parcel.Scheme: "the device is there, but takes no files now: peerchat receive has to run there",
	forwardScheme: "the device is there, but serves no forwards: its daemon does, so peerchat run has to hold the account there",
}

// inWords is an error told in other words.
type inWords struct {
	words string
	err   error
}

// Error returns the words.
func (e *inWords) Error() string { return e.words }

// Unwrap returns the error.
func (e *inWords) Unwrap() error { return e.err }

// refusedInWords says what to do about a device that did not take a channel.
// Where several were asked, each has its say below.
func refusedInWords(uri string, err error) error {
	at := strings.Index(uri, "://") + len("://")
	words := nobodyThere[uri[:at]]
	switch {
	case errors.Is(err, identity.ErrBanned) && !errors.Is(err, identity.ErrRevoked):
		return fmt.Errorf("%w (peerchat contacts allow takes that back)", err)
	case words == "" || !errors.Is(err, peerlink.ErrNoListener):
		return err
	case strings.Contains(words, "%s"):
		words = fmt.Sprintf(words, printable(uri[at:]))
	}
	if each := err.Error(); strings.Contains(each, "\n") {
		words += "\n" + each
	}
	return &inWords{words, err}
}

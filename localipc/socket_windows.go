package localipc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"

	"peerlink/identity"
)

const pipePrefix = `\\.\pipe\peerlink-`

// pipeBuffer is how much waits in a pipe in each direction, as in a Unix socket.
const pipeBuffer = 208 << 10

// selfUID is 0: the pipe's access list and peerCreds compare users.
func selfUID() int { return 0 }

// defaultDir is not used: pipes have a folder of their own.
func defaultDir() string { return "" }

// pipePath is a device's pipe. Its name contains the user, so that users do not
// meet each other's.
func pipePath(id identity.DeviceID) (path string, user *windows.SID, err error) {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", nil, fmt.Errorf("ask for this process's user: %w", err)
	}
	return pipePrefix + u.User.Sid.String() + "-" + id.String(), u.User.Sid, nil
}

// doorway is a device's pipe. The system keeps the first instance of a pipe for
// whoever made it, and removes it with its last handle: there is nothing to lock
// and nothing to clean.
type doorway struct {
	net.Listener
	name string
}

func openDoorway(_ context.Context, cfg Config) (*doorway, error) {
	path, user, err := pipePath(cfg.Identity.DeviceID())
	if err != nil {
		return nil, err
	}
	l, err := winio.ListenPipe(path, &winio.PipeConfig{
		SecurityDescriptor: "D:P(A;;GA;;;" + user.String() + ")",
		MessageMode:        true, // or there is no CloseWrite
		InputBufferSize:    pipeBuffer,
		OutputBufferSize:   pipeBuffer,
	})
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_PIPE_BUSY) {
		return nil, fmt.Errorf("%w: %w", ErrInUse, err)
	}
	if err != nil {
		return nil, err
	}
	return &doorway{Listener: l, name: path}, nil
}

func (d *doorway) path() string { return d.name }

func (c Config) find(ctx context.Context, id identity.DeviceID, service string) (net.Conn, string, error) {
	if service != streamService {
		return nil, "", fmt.Errorf("service %q: a named pipe carries streams only: %w", service, errors.ErrUnsupported)
	}
	path, _, err := pipePath(id)
	if err != nil {
		return nil, "", err
	}
	conn, err := winio.DialPipeContext(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("%w (there is no pipe %s)", ErrNotHere, path)
	}
	return conn, path, err
}

func (c Config) devices() ([]Device, error) {
	return nil, fmt.Errorf("listing devices by named pipes: %w", errors.ErrUnsupported)
}

// peerCreds asks the system which process is at the other end of a pipe, and
// refuses one of another user.
func peerCreds(conn net.Conn) (creds, error) {
	p, ok := conn.(interface{ Fd() uintptr })
	if !ok {
		return creds{}, errors.New("not a pipe of the system")
	}
	pipe := windows.Handle(p.Fd())
	var flags uint32
	if err := windows.GetNamedPipeInfo(pipe, &flags, nil, nil, nil); err != nil {
		return creds{}, err
	}
	var pid uint32
	ask := windows.GetNamedPipeServerProcessId
	if flags&windows.PIPE_SERVER_END != 0 {
		ask = windows.GetNamedPipeClientProcessId
	}
	if err := ask(pipe, &pid); err != nil {
		return creds{}, err
	}
	if err := checkProcess(pid); err != nil {
		return creds{}, err
	}
	return creds{pid: int(pid), uid: selfUID()}, nil
}

func checkProcess(pid uint32) error {
	proc, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer func() { _ = windows.CloseHandle(proc) }()
	var token windows.Token
	if err := windows.OpenProcessToken(proc, windows.TOKEN_QUERY, &token); err != nil {
		return fmt.Errorf("ask for the user of process %d: %w", pid, err)
	}
	defer func() { _ = token.Close() }()
	theirs, err := token.GetTokenUser()
	if err != nil {
		return fmt.Errorf("ask for the user of process %d: %w", pid, err)
	}
	ours, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return fmt.Errorf("ask for this process's user: %w", err)
	}
	if !theirs.User.Sid.Equals(ours.User.Sid) {
		return fmt.Errorf("process %d belongs to user %s", pid, theirs.User.Sid)
	}
	return nil
}

package webrtc

import (
	"io"
	"testing"

	pion "github.com/pion/webrtc/v4"

	"peerlink/internal/calls"
	"peerlink/internal/pause"
)

// BenchmarkStream writes 64 KiB at a time to a peer that reads all of it.
func BenchmarkStream(b *testing.B) {
	x := newExchange()
	c, s := connect(b, x.newDevice(b, "alice"), x.newDevice(b, "bob"))
	read := make(chan int64, 1)
	go func() {
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, make([]byte, 64<<10))
		if err != nil {
			b.Error(err)
		}
		read <- n
	}()
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.(*Conn).CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if n := <-read; n != int64(b.N)*int64(len(buf)) {
		b.Errorf("%d bytes arrived", n)
	}
}

// BenchmarkBareChannel is the same over pion's detached channel by itself,
// paced by BufferedAmount, as what a stream can be at most.
func BenchmarkBareChannel(b *testing.B) {
	x := newExchange()
	m, o := x.newDevice(b, "alice"), x.newDevice(b, "bob")
	near, err := m.newSession(b.Context(), caller, calls.NewID(), o.id.DeviceID(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer near.hangUp()
	far, err := o.newSession(b.Context(), callee, near.id, m.id.DeviceID(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer far.hangUp()
	meet(b, near, far)
	from, to := <-near.openc, <-far.openc
	lowc := make(chan struct{}, 1)
	from.SetBufferedAmountLowThreshold(sendLow)
	from.OnBufferedAmountLow(func() { pause.Tell(lowc, struct{}{}) })
	const size = 16 << 10
	quit := make(chan struct{})
	go func() {
		defer close(quit)
		buf := make([]byte, maxMessage)
		for {
			if n, text, err := to.ReadDataChannel(buf); err != nil || text && n > 0 {
				return
			}
		}
	}()
	buf := make([]byte, size)
	b.SetBytes(4 * size)
	b.ReportAllocs()
	for b.Loop() {
		for range 4 {
			for from.BufferedAmount() > sendHigh {
				<-lowc
			}
			if _, err := from.WriteDataChannel(buf, false); err != nil {
				b.Fatal(err)
			}
		}
	}
	if _, err := from.WriteDataChannel([]byte(endMark), true); err != nil {
		b.Fatal(err)
	}
	<-quit
}

// meet connects two sessions without a signaller.
func meet(b testing.TB, near, far *session) {
	b.Helper()
	ctx := limit(b, 1e10)
	pass := func(k calls.Kind, sdp string, err error, s *session) *message {
		if err != nil {
			b.Fatal(err)
		}
		s.gather(ctx)
		raw, err := (&message{kind: k, id: s.id, sdp: sdp, candidates: s.all()}).encode()
		if err != nil {
			b.Fatal(err)
		}
		m, err := decode(raw, loopback)
		if err != nil {
			b.Fatal(err)
		}
		return m
	}
	sdp, err := near.offer()
	offer := pass(calls.Offer, sdp, err, near)
	sdp, err = far.answer(offer)
	if err := near.describe(pion.SDPTypeAnswer, pass(calls.Answer, sdp, err, far)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDial makes streams one after another.
func BenchmarkDial(b *testing.B) {
	x := newExchange()
	m, o := x.newDevice(b, "alice"), x.newDevice(b, "bob")
	for b.Loop() {
		ctx := limit(b, 1e10)
		in := o.acceptLater(ctx)
		conn, _, err := m.Dial(ctx, o.id.DeviceID())
		if err != nil {
			b.Fatal(err)
		}
		conn.Close()
		if r := <-in; r.err == nil {
			r.conn.Close()
		}
	}
}

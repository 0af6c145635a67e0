package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

// makeFiles writes Alice's files.
func (d *demo) makeFiles() error {
	for _, f := range demoFiles {
		r, err := makeFile(d.path(f.name), f)
		if err != nil {
			return err
		}
		d.files = append(d.files, r)
	}
	return nil
}

func makeFile(path string, f demoFile) (r fileReport, err error) {
	out, err := os.Create(path)
	if err != nil {
		return r, err
	}
	h := sha256.New()
	random := rand.NewChaCha8(sha256.Sum256([]byte(f.name)))
	if _, err = io.Copy(io.MultiWriter(out, h), io.LimitReader(random, f.size)); err != nil {
		_ = out.Close()
		return r, err
	}
	return fileReport{Name: f.name, Bytes: f.size, SHA256: fmt.Sprintf("%x", h.Sum(nil)), OK: true}, out.Close()
}

func hashFile(path string) (r fileReport, err error) {
	f, err := os.Open(path)
	if err != nil {
		return r, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return fileReport{Name: f.Name(), Bytes: n, SHA256: fmt.Sprintf("%x", h.Sum(nil)), OK: err == nil}, err
}

package main

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
)

// A forwarder listens without TLS on loopback and passes every connection on to a replica with TLS: etcd's
// recording client cannot be given a certificate.
type forwarder struct {
	listener net.Listener
	to       string
	config   *tls.Config
}

func forward(to string, config *tls.Config) (*forwarder, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &forwarder{listener: listener, to: to, config: config}
	go f.run()
	return f, nil
}

func (f *forwarder) endpoint() string { return "http://" + f.listener.Addr().String() }

func (f *forwarder) close() { f.listener.Close() }

func (f *forwarder) run() {
	for {
		from, err := f.listener.Accept()
		if err != nil {
			return
		}
		go f.pass(from)
	}
}

// pass ends both connections as soon as one has ended: a dead replica is a dead connection here too.
func (f *forwarder) pass(from net.Conn) {
	defer from.Close()
	to, err := tls.Dial("tcp", f.to, f.config)
	if err != nil {
		return
	}
	defer to.Close()
	var once sync.Once
	ended := make(chan struct{})
	end := func() { once.Do(func() { close(ended) }) }
	go func() { io.Copy(to, from); end() }()
	go func() { io.Copy(from, to); end() }()
	<-ended
}

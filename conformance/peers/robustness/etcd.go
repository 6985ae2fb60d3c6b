package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"go.etcd.io/etcd/tests/v3/robustness/model"
	"go.etcd.io/etcd/tests/v3/robustness/report"
	"go.uber.org/zap"
)

// cluster is etcd itself, three members: it shows that the judge acquits who is innocent.
type cluster struct {
	program   string
	directory string
	clients   []string
	peers     []string
	processes []*exec.Cmd
}

func startEtcd(program, directory string) (*cluster, error) {
	c := &cluster{program: program, directory: directory, processes: make([]*exec.Cmd, 3)}
	for range c.processes {
		client, err := freeAddress()
		if err != nil {
			return nil, err
		}
		peer, err := freeAddress()
		if err != nil {
			return nil, err
		}
		c.clients, c.peers = append(c.clients, "http://"+client), append(c.peers, "http://"+peer)
	}
	for place := range c.processes {
		if err := c.restart(place); err != nil {
			return nil, errors.Join(err, c.stop())
		}
	}
	return c, nil
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

func (c *cluster) data(place int) string {
	return filepath.Join(c.directory, fmt.Sprintf("m%d", place))
}

func (c *cluster) names() (names []string) {
	for place := range c.processes {
		names = append(names, fmt.Sprintf("m%d", place))
	}
	return names
}

func (c *cluster) endpoints() []string { return c.clients }

func (c *cluster) restart(place int) error {
	var all []string
	for other, peer := range c.peers {
		all = append(all, fmt.Sprintf("m%d=%s", other, peer))
	}
	output, err := os.OpenFile(c.data(place)+".output", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	command := exec.Command(c.program,
		fmt.Sprintf("--name=m%d", place), "--data-dir="+c.data(place),
		"--listen-client-urls="+c.clients[place], "--advertise-client-urls="+c.clients[place],
		"--listen-peer-urls="+c.peers[place], "--initial-advertise-peer-urls="+c.peers[place],
		"--initial-cluster="+strings.Join(all, ","))
	command.Stdout, command.Stderr = output, output
	if err := command.Start(); err != nil {
		return err
	}
	c.processes[place] = command
	return nil
}

func (c *cluster) kill(place int) error {
	process := c.processes[place]
	c.processes[place] = nil
	if err := process.Process.Kill(); err != nil {
		return err
	}
	process.Wait()
	return gone(process.Process.Pid)
}

func (c *cluster) pause(place int) error { return pauseProcess(c.processes[place].Process.Pid) }

func (c *cluster) resume(place int) error {
	return c.processes[place].Process.Signal(syscall.SIGCONT)
}

func (c *cluster) cut(int) error { return errors.New("etcd's links cannot be cut here") }

func (c *cluster) heal(int) error { return errors.New("etcd's links cannot be cut here") }

func (c *cluster) canCut() bool { return false }

func (c *cluster) stop() error {
	for place, process := range c.processes {
		if process != nil {
			process.Process.Signal(syscall.SIGCONT)
			process.Process.Signal(syscall.SIGTERM)
			process.Wait()
			c.processes[place] = nil
		}
	}
	return nil
}

func (c *cluster) requests() ([]model.EtcdRequest, error) {
	var directories []string
	for place := range c.processes {
		directories = append(directories, c.data(place))
	}
	return report.PersistedRequests(zap.NewNop(), directories)
}

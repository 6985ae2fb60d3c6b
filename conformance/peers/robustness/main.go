// Robustness runs etcd's robustness traffic against a network of real processes while they are killed,
// paused and cut off, and has etcd's own judge look at the record; then it lies to the judge.
//
//	robustness --program PROGRAM --requests PROGRAM [--on etcd] [--keep DIR]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/etcd/tests/v3/robustness/model"
	"go.etcd.io/etcd/tests/v3/robustness/traffic"
	"go.uber.org/zap"
)

var kinds = []struct {
	name    string
	traffic traffic.Traffic
}{
	{"Kubernetes", traffic.Kubernetes},
	{"etcd", traffic.EtcdPutDeleteLease},
}

func main() {
	program := flag.String("program", "", "the program judged")
	reader := flag.String("requests", "", "conformance's `requests`, which reads a replica's log")
	on := flag.String("on", "althing", "althing or etcd: what the program is")
	keep := flag.String("keep", "", "where to leave logs, data and reports")
	flag.Parse()
	directory := *keep
	if directory == "" {
		made, err := os.MkdirTemp("", "robustness.")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		directory = made
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var t tally
	for _, kind := range kinds {
		start := func(directory string) (network, error) { return startDemo(*program, *reader, directory) }
		if *on == "etcd" {
			start = func(directory string) (network, error) { return startEtcd(*program, directory) }
		}
		begin := time.Now()
		fmt.Printf("%s traffic on %s\n", kind.name, *on)
		err := run(ctx, filepath.Join(directory, kind.name), start, kind.traffic, &t)
		t.note(kind.name+" traffic", fmt.Sprintf("%.0f s", time.Since(begin).Seconds()), err)
	}
	verdict := "ok"
	if t.failed > 0 {
		verdict = "FAILED"
		fmt.Printf("logs, data and reports are in %s\n", directory)
	} else if *keep == "" {
		os.RemoveAll(directory)
	}
	fmt.Printf("test result: %s. %d passed; %d failed\n", verdict, t.passed, t.failed)
	if t.failed > 0 {
		os.Exit(1)
	}
}

// tally counts what the run has shown.
type tally struct{ passed, failed int }

func (t *tally) note(what, how string, err error) {
	if err != nil {
		t.failed++
		fmt.Printf("%s: FAILED: %v\n", what, err)
		return
	}
	t.passed++
	fmt.Printf("%s: ok: %s\n", what, how)
}

// run records and judges one kind of traffic.
func run(ctx context.Context, directory string, start func(string) (network, error), tf traffic.Traffic, t *tally) (err error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	net, err := start(directory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, net.stop()) }()
	b, err := newBystander(net.endpoints())
	if err != nil {
		return err
	}
	defer b.close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for place := range net.names() {
		err := eventually(ctx, net.names()[place]+" answers", func() bool { return b.answers(ctx, place, soon) })
		if err != nil {
			return err
		}
	}
	r, err := record(ctx, net, b, tf)
	if err != nil {
		return err
	}
	if err := b.equalHashes(ctx); err != nil {
		return err
	}
	if err := net.stop(); err != nil {
		return err
	}
	requests, err := net.requests()
	if err != nil {
		return err
	}
	if err := r.enough(requests); err != nil {
		return err
	}
	return sentence(filepath.Join(directory, "reports"), tf.ExpectUniqueRevision(), r, requests, t)
}

// sentence has the record judged as it is, and once with each lie in it.
func sentence(directory string, unique bool, r *recorded, requests []model.EtcdRequest, t *tally) error {
	if err := save(directory, unique, r.reports); err != nil {
		return err
	}
	lg, err := zap.NewDevelopment(zap.IncreaseLevel(zap.ErrorLevel))
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := judgement(lg, unique, r.reports, requests); err != nil {
		return err
	}
	fmt.Printf("  linearizable, the nine checks of watches hold, old reads are right: %.1f s\n", time.Since(begin).Seconds())
	for _, one := range lies {
		check, err := one.convicted(directory, unique, requests)
		t.note("  lie: "+one.name, "convicted by "+check, err)
	}
	return nil
}

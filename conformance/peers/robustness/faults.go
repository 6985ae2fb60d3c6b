package main

import (
	"context"
	"fmt"
	"math/rand"
	"time"
)

// A fault that has happened and is over.
type fault struct {
	what       string
	name       string
	begin, end time.Duration
}

// How many revisions the network must order before, during and after each fault.
const (
	warmUp = 100
	growth = 40
)

// inject does one fault after another, each to one replica, the first of each kind to the one that leads.
// It goes on when the others have gone on, so it depends on no machine's speed.
func inject(ctx context.Context, net network, b *bystander, base time.Time) ([]fault, error) {
	kinds := []struct {
		what       string
		begin, end func(int) error
	}{
		{"killed", net.kill, net.restart},
		{"paused", net.pause, net.resume},
	}
	if net.canCut() {
		kinds = append(kinds, struct {
			what       string
			begin, end func(int) error
		}{"cut off", net.cut, net.heal})
	}
	if err := b.grows(ctx, -1, warmUp); err != nil {
		return nil, fmt.Errorf("before any fault: %w", err)
	}
	var faults []fault
	for _, leads := range []bool{true, false} {
		for _, kind := range kinds {
			var place int
			err := eventually(ctx, "a primary", func() bool {
				leader, err := b.leader(ctx, -1)
				place = leader
				return err == nil
			})
			if err != nil {
				return nil, err
			}
			if !leads {
				place = (place + 1 + rand.Intn(len(b.clients)-1)) % len(b.clients)
			}
			one := fault{what: kind.what + " a backup", name: net.names()[place], begin: time.Since(base)}
			if leads {
				one.what = kind.what + " the primary"
			}
			if err := kind.begin(place); err != nil {
				return nil, fmt.Errorf("%s (%s): %w", one.what, one.name, err)
			}
			if err := during(ctx, b, place, leads); err != nil {
				return nil, fmt.Errorf("%s (%s): %w", one.what, one.name, err)
			}
			if err := kind.end(place); err != nil {
				return nil, fmt.Errorf("the end of %s (%s): %w", one.what, one.name, err)
			}
			one.end = time.Since(base)
			err = eventually(ctx, one.name+" answers again", func() bool { return b.answers(ctx, place, soon) })
			if err == nil {
				err = b.grows(ctx, -1, growth)
			}
			if err != nil {
				return nil, fmt.Errorf("after %s (%s): %w", one.what, one.name, err)
			}
			fmt.Printf("  %s: %s, %.1f s\n", one.what, one.name, (one.end - one.begin).Seconds())
			faults = append(faults, one)
		}
	}
	return faults, nil
}

// during: the replica answers nobody, the others go on, under another primary if it led.
func during(ctx context.Context, b *bystander, place int, led bool) error {
	if b.answers(ctx, place, 500*time.Millisecond) {
		return fmt.Errorf("it still answers")
	}
	if led {
		err := eventually(ctx, "another primary", func() bool {
			_, err := b.leader(ctx, place)
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return b.grows(ctx, place, growth)
}

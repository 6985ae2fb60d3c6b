package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/tests/v3/robustness/model"
	"go.uber.org/zap"
)

// patience is how long anything may take that must happen, however slow the machine is.
const patience = 60 * time.Second

// soon is how long one attempt may take, before the next one.
const soon = 3 * time.Second

// A network of real processes, and what can be done to them.
type network interface {
	// names of the replicas, by place.
	names() []string
	// endpoints as etcd's recording client dials them: without TLS, for it knows none.
	endpoints() []string
	kill(place int) error
	restart(place int) error
	pause(place int) error
	resume(place int) error
	// cut takes a replica's links to the others away, heal gives them back. Not everyone can.
	cut(place int) error
	heal(place int) error
	canCut() bool
	// requests in the order in which they took effect, from what the replicas stored; after stop.
	requests() ([]model.EtcdRequest, error)
	stop() error
}

// A bystander asks the network about itself; what it asks is in no history.
type bystander struct {
	endpoints []string
	clients   []*clientv3.Client
}

func newBystander(endpoints []string) (*bystander, error) {
	b := &bystander{endpoints: endpoints}
	for _, endpoint := range endpoints {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
		if err != nil {
			return nil, err
		}
		b.clients = append(b.clients, c)
	}
	return b, nil
}

func (b *bystander) close() {
	for _, c := range b.clients {
		c.Close()
	}
}

// leader is the place of the replica that leads, as one of those not left out says.
func (b *bystander) leader(ctx context.Context, leftOut int) (int, error) {
	members := map[uint64]int{}
	var leads uint64
	for place := range b.clients {
		if place == leftOut {
			continue
		}
		status, err := b.status(ctx, place)
		if err != nil {
			return 0, fmt.Errorf("status of %s: %w", b.endpoints[place], err)
		}
		members[status.Header.MemberId] = place
		leads = status.Leader
	}
	place, ok := members[leads]
	if !ok {
		return 0, errors.New("no replica that answers leads")
	}
	return place, nil
}

func (b *bystander) status(ctx context.Context, place int) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	return b.clients[place].Status(ctx, b.endpoints[place])
}

// answers says whether a linearizable read through this replica is answered within the time.
func (b *bystander) answers(ctx context.Context, place int, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := b.clients[place].Get(ctx, "bystander")
	return err == nil
}

// revision is the highest that any replica but the one left out shows.
func (b *bystander) revision(ctx context.Context, leftOut int) int64 {
	var highest int64
	for place := range b.clients {
		if place == leftOut {
			continue
		}
		if status, err := b.status(ctx, place); err == nil {
			highest = max(highest, status.Header.Revision)
		}
	}
	return highest
}

// grows waits until the others have ordered that many revisions more.
func (b *bystander) grows(ctx context.Context, leftOut int, by int64) error {
	from := b.revision(ctx, leftOut)
	return eventually(ctx, fmt.Sprintf("%d revisions more than %d", by, from), func() bool {
		return b.revision(ctx, leftOut) >= from+by
	})
}

// equalHashes compares the content of all replicas at one revision.
func (b *bystander) equalHashes(ctx context.Context) error {
	revision := b.revision(ctx, -1)
	var first *clientv3.HashKVResponse
	for place, c := range b.clients {
		err := eventually(ctx, fmt.Sprintf("%s holds revision %d", b.endpoints[place], revision), func() bool {
			status, err := b.status(ctx, place)
			return err == nil && status.Header.Revision >= revision
		})
		if err != nil {
			return err
		}
		hash, err := c.HashKV(ctx, b.endpoints[place], revision)
		if err != nil {
			return fmt.Errorf("HashKV of %s: %w", b.endpoints[place], err)
		}
		if first == nil {
			first = hash
		}
		if hash.Hash != first.Hash {
			return fmt.Errorf("at revision %d %s holds other content than %s", revision, b.endpoints[place], b.endpoints[0])
		}
	}
	return nil
}

func eventually(ctx context.Context, what string, is func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %s", patience, what)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

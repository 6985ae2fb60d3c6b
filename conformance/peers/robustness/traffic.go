package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/tests/v3/robustness/client"
	"go.etcd.io/etcd/tests/v3/robustness/identity"
	"go.etcd.io/etcd/tests/v3/robustness/report"
	"go.etcd.io/etcd/tests/v3/robustness/traffic"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// profile keeps a machine of two cores, four replicas and their clients on it, from being the thing measured.
// Deletes without an answer make the search for an order long, so one at a time is enough.
var profile = traffic.Profile{
	KeyValue: &traffic.KeyValue{
		MaximalQPS:                     250,
		BurstableQPS:                   250,
		MaxNonUniqueRequestConcurrency: 1,
		MemberClientCount:              8,
		ClusterClientCount:             2,
	},
	Watch: &traffic.Watch{
		MemberClientCount:   4,
		ClusterClientCount:  2,
		RevisionOffsetRange: traffic.Range{Min: -100, Max: 100},
	},
	Compaction: &traffic.Compaction{Period: 500 * time.Millisecond},
}

// recorded is what clients saw of one run.
type recorded struct {
	reports []report.ClientReport
	faults  []fault
	begin   time.Duration
	end     time.Duration
	base    time.Time
}

// record runs one kind of traffic while faults happen, until both have had enough.
func record(ctx context.Context, net network, b *bystander, tf traffic.Traffic) (*recorded, error) {
	// A view change takes about a second; etcd's 200 ms would only make outcomes unknown.
	traffic.RequestTimeout = time.Second
	base := time.Now()
	ids := identity.NewIDProvider()
	clients, watchers := client.NewSet(ids, base), client.NewSet(ids, base)
	defer clients.Close()
	defer watchers.Close()
	if err := traffic.CheckEmptyDatabaseAtStart(ctx, zap.NewNop(), net.endpoints(), clients); err != nil {
		return nil, err
	}
	r := &recorded{base: base}
	newest := make(chan int64, 1)
	var group errgroup.Group
	var failed error
	group.Go(func() error {
		// Closed without a revision, it ends the watchers too, with an error that says less.
		defer close(newest)
		if failed = r.simulate(ctx, net, b, tf, clients); failed == nil {
			newest <- report.OperationsMaxRevision(clients.Reports())
		}
		return nil
	})
	// Every replica's whole history, resumed by the client where faults break it off.
	group.Go(func() error {
		return client.CollectClusterWatchEvents(ctx, client.CollectClusterWatchEventsParam{
			Lg: zap.NewNop(), Endpoints: net.endpoints(), MaxRevisionChan: newest, ClientSet: watchers,
		})
	})
	err := group.Wait()
	if failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, fmt.Errorf("a watch of everything: %w", err)
	}
	r.reports = slices.Concat(clients.Reports(), watchers.Reports())
	return r, nil
}

// simulate sends traffic until all faults are over, then the last write that the judge insists on.
func (r *recorded) simulate(ctx context.Context, net network, b *bystander, tf traffic.Traffic, clients *client.ClientSet) error {
	limiter := rate.NewLimiter(rate.Limit(profile.KeyValue.MaximalQPS), profile.KeyValue.BurstableQPS)
	keys, storage := traffic.NewKeyStore(10, "key"), traffic.NewKubernetesStorage()
	finish := make(chan struct{})
	var wait sync.WaitGroup
	r.begin = time.Since(r.base)
	err := traffic.SimulateKeyValueTraffic(ctx, &wait, profile.KeyValue, net.endpoints(), clients, tf, traffic.RunTrafficLoopParam{
		QPSLimiter: limiter, IDs: clients.IdentityProvider(), LeaseIDStorage: identity.NewLeaseIDStorage(),
		NonUniqueRequestConcurrencyLimiter: traffic.NewConcurrencyLimiter(profile.KeyValue.MaxNonUniqueRequestConcurrency),
		KeyStore:                           keys, Storage: storage, Finish: finish,
	})
	if err == nil {
		err = traffic.SimulateWatchTraffic(ctx, &wait, profile.Watch, net.endpoints(), clients, tf, traffic.RunWatchLoopParam{
			Config: *profile.Watch, QPSLimiter: limiter, KeyStore: keys, Storage: storage, Finish: finish, Logger: zap.NewNop(),
		})
	}
	if err == nil {
		err = traffic.SimulateCompactionTraffic(ctx, &wait, profile.Compaction, net.endpoints(), clients, tf, traffic.RunCompactLoopParam{
			Period: profile.Compaction.Period, Finish: finish,
		})
	}
	if err == nil {
		r.faults, err = inject(ctx, net, b, r.base)
	}
	close(finish)
	wait.Wait()
	r.end = time.Since(r.base)
	if err != nil {
		return err
	}
	return lastWrite(ctx, net, clients)
}

// lastWrite is acknowledged: what had no answer before it is in the logs by then, or in none.
func lastWrite(ctx context.Context, net network, clients *client.ClientSet) error {
	c, err := clients.NewClient(net.endpoints())
	if err != nil {
		return err
	}
	defer c.Close()
	for range 10 {
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err = c.Put(limited, "tombstone", "true")
		cancel()
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("the last write fails: %w", err)
}

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
	"go.etcd.io/etcd/tests/v3/robustness/model"
	"go.etcd.io/etcd/tests/v3/robustness/report"
	"go.uber.org/zap"
)

// A lie changes what clients report as a wrong server would have changed what it told them.
type lie struct {
	name string
	// convicts is what the judge must say.
	convicts string
	tell     func(reports []report.ClientReport, replay *model.EtcdReplay) error
}

var errNoPlace = errors.New("the record has no place for this lie")

var lies = []lie{
	{"a lost event", "watch: Failure: broke Reliable", loseEvent},
	{"a repeated event", "watch: Failure: broke Unique", repeatEvent},
	{"early progress", "watch: Failure: broke Bookmarkable", earlyProgress},
	{"a wrong prev_kv", "watch: Failure: incorrect event prevValue", wrongPrevious},
	{"a stale read", "linearization: Failure: illegal", staleRead},
	{"a wrong old read", "serializable: Failure: response didn't match expected", wrongOldRead},
	{"a lost update", "linearization: Failure: illegal", loseUpdate},
	{"one revision twice", "linearization: Failure: illegal", revisionTwice},
}

// convicted plants the lie in a copy of the record, and returns which check convicts it.
func (l *lie) convicted(directory string, unique bool, requests []model.EtcdRequest) (string, error) {
	reports, err := report.LoadClientReports(directory)
	if err != nil {
		return "", err
	}
	if err := l.tell(reports, model.NewReplay(requests)); err != nil {
		return "", err
	}
	verdict := quietly(func() error { return judgement(zap.NewNop(), unique, reports, requests) })
	if verdict == nil {
		return "", errors.New("the judge believes it")
	}
	said, _, _ := strings.Cut(verdict.Error(), " - ")
	if !strings.HasPrefix(said, l.convicts) {
		return "", fmt.Errorf("convicted by %q, not by %q", said, l.convicts)
	}
	return said, nil
}

// quietly keeps what etcd's checks print about a lie out of the output.
func quietly(judge func() error) error {
	stdout := os.Stdout
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() { io.Copy(io.Discard, read); close(done) }()
	os.Stdout = write
	defer func() { os.Stdout = stdout; write.Close(); <-done; read.Close() }()
	return judge()
}

// middle finds, in the watches that ask for a revision, a response of events between two others.
func middle(reports []report.ClientReport, fits func(*model.WatchOperation, int) bool) (*model.WatchOperation, int, error) {
	for at := range reports {
		for index := range reports[at].Watch {
			watch := &reports[at].Watch[index]
			for place := 1; place+1 < len(watch.Responses) && watch.Request.Revision != 0; place++ {
				around := watch.Responses[place-1 : place+2]
				events := !slices.ContainsFunc(around, func(r model.WatchResponse) bool { return len(r.Events) == 0 })
				if events && fits(watch, place) {
					return watch, place, nil
				}
			}
		}
	}
	return nil, 0, errNoPlace
}

func anywhere(*model.WatchOperation, int) bool { return true }

func loseEvent(reports []report.ClientReport, _ *model.EtcdReplay) error {
	watch, place, err := middle(reports, anywhere)
	if err != nil {
		return err
	}
	response := &watch.Responses[place]
	response.Events = response.Events[:len(response.Events)-1]
	return nil
}

func repeatEvent(reports []report.ClientReport, _ *model.EtcdReplay) error {
	watch, place, err := middle(reports, anywhere)
	if err != nil {
		return err
	}
	response := &watch.Responses[place]
	response.Events = append(response.Events, response.Events[len(response.Events)-1])
	return nil
}

// earlyProgress tells that all up to the next event's revision has been shown.
func earlyProgress(reports []report.ClientReport, _ *model.EtcdReplay) error {
	watch, place, err := middle(reports, anywhere)
	if err != nil {
		return err
	}
	next := watch.Responses[place]
	early := model.WatchResponse{IsProgressNotify: true, Revision: next.Events[0].Revision, Time: next.Time}
	watch.Responses = slices.Insert(watch.Responses, place, early)
	return nil
}

func wrongPrevious(reports []report.ClientReport, _ *model.EtcdReplay) error {
	has := func(event model.WatchEvent) bool { return event.PrevValue != nil }
	watch, place, err := middle(reports, func(watch *model.WatchOperation, place int) bool {
		return slices.ContainsFunc(watch.Responses[place].Events, has)
	})
	if err != nil {
		return err
	}
	events := watch.Responses[place].Events
	events[slices.IndexFunc(events, has)].PrevValue.Version++
	return nil
}

// each visits the operations with an answer, by the time at which they were called.
func each(reports []report.ClientReport, visit func(*porcupine.Operation, model.EtcdRequest, model.MaybeEtcdResponse) bool) {
	var all []*porcupine.Operation
	for at := range reports {
		for index := range reports[at].KeyValue {
			all = append(all, &reports[at].KeyValue[index])
		}
	}
	slices.SortFunc(all, func(a, b *porcupine.Operation) int { return int(a.Call - b.Call) })
	for _, op := range all {
		response := op.Output.(model.MaybeEtcdResponse)
		if response.Error == "" && response.ClientError == "" && !visit(op, op.Input.(model.EtcdRequest), response) {
			return
		}
	}
}

func isRead(request model.EtcdRequest) bool {
	return request.Type == model.Range && request.Range.Revision == 0
}

// written is an acknowledged put: its key, its revision, and when it was acknowledged.
type written struct {
	op       *porcupine.Operation
	key      string
	revision int64
}

// puts are the acknowledged transactions that put one key and changed it.
func puts(reports []report.ClientReport) (found []written) {
	each(reports, func(op *porcupine.Operation, request model.EtcdRequest, response model.MaybeEtcdResponse) bool {
		if request.Type == model.Txn && !response.Txn.Failure && len(request.Txn.OperationsOnSuccess) == 1 {
			if one := request.Txn.OperationsOnSuccess[0]; one.Type == model.PutOperation && one.Put.LeaseID == 0 {
				found = append(found, written{op, one.Put.Key, response.Revision})
			}
		}
		return true
	})
	return found
}

// staleRead answers a read, header and all, from the state before a write that was acknowledged earlier.
func staleRead(reports []report.ClientReport, replay *model.EtcdReplay) error {
	all, result := puts(reports), errNoPlace
	each(reports, func(op *porcupine.Operation, request model.EtcdRequest, _ model.MaybeEtcdResponse) bool {
		if !isRead(request) {
			return true
		}
		for _, put := range all {
			if put.op.Return >= op.Call || !covers(request.Range, put.key) {
				continue
			}
			state, err := replay.StateForRevision(put.revision - 1)
			if err != nil {
				result = err
				return false
			}
			_, stale := state.Step(request)
			op.Output, result = stale, nil
			return false
		}
		return true
	})
	return result
}

func covers(request *model.RangeRequest, key string) bool {
	if request.End == "" {
		return request.Start == key
	}
	return request.Start <= key && key < request.End
}

// wrongOldRead changes what a read of an old revision found.
func wrongOldRead(reports []report.ClientReport, _ *model.EtcdReplay) error {
	result := errNoPlace
	each(reports, func(_ *porcupine.Operation, request model.EtcdRequest, response model.MaybeEtcdResponse) bool {
		old := request.Type == model.Range && request.Range.Revision != 0 && request.Range.Revision < response.Revision
		if !old || len(response.Range.KVs) == 0 {
			return true
		}
		response.Range.KVs[0].Version++
		result = nil
		return false
	})
	return result
}

// loseUpdate takes an acknowledged write out of every later read, as if it had never been there.
func loseUpdate(reports []report.ClientReport, replay *model.EtcdReplay) error {
	for _, put := range puts(reports) {
		state, err := replay.StateForRevision(put.revision - 1)
		if err != nil {
			return err
		}
		lost := 0
		each(reports, func(op *porcupine.Operation, request model.EtcdRequest, response model.MaybeEtcdResponse) bool {
			if !isRead(request) || op.Call <= put.op.Return {
				return true
			}
			kvs := response.Range.KVs
			at := slices.IndexFunc(kvs, func(kv model.KeyValue) bool {
				return kv.Key == put.key && kv.ModRevision == put.revision
			})
			if at < 0 {
				return true
			}
			lost++
			if before, ok := state.GetValue(put.key); ok {
				kvs[at].ValueRevision = *before
				if request.Range.KeysOnly {
					kvs[at].Value = model.ValueOrHash{}
				}
				return true
			}
			response.Range.KVs = slices.Delete(kvs, at, at+1)
			response.Range.Count--
			return true
		})
		if lost > 0 {
			return nil
		}
	}
	return errNoPlace
}

// revisionTwice acknowledges a write with the revision of the one before it.
func revisionTwice(reports []report.ClientReport, _ *model.EtcdReplay) error {
	all := puts(reports)
	for _, second := range all {
		before := func(first written) bool { return first.revision == second.revision-1 }
		if slices.ContainsFunc(all, before) {
			response := second.op.Output.(model.MaybeEtcdResponse)
			response.Revision--
			second.op.Output = response
			return nil
		}
	}
	return errNoPlace
}

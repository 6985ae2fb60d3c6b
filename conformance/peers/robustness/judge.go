package main

import (
	"fmt"
	"time"

	"go.etcd.io/etcd/tests/v3/robustness/model"
	"go.etcd.io/etcd/tests/v3/robustness/report"
	"go.etcd.io/etcd/tests/v3/robustness/traffic"
	"go.etcd.io/etcd/tests/v3/robustness/validate"
	"go.uber.org/zap"
)

// judgement is etcd's own: linearizability by porcupine, then the nine checks of watches, then old reads.
func judgement(lg *zap.Logger, unique bool, reports []report.ClientReport, requests []model.EtcdRequest) (err error) {
	defer func() {
		// A history that no state explains ends a check in a panic.
		if found := recover(); found != nil {
			err = fmt.Errorf("panic: %v", found)
		}
	}()
	config := validate.Config{ExpectRevisionUnique: unique}
	return validate.ValidateAndReturnVisualize(lg, config, reports, requests, 10*time.Minute).Error()
}

// enough tells what the run consisted of, and refuses one that shows nothing.
func (r *recorded) enough(requests []model.EtcdRequest) error {
	stats := traffic.CalculateStats(r.reports, r.begin, r.end)
	watch := traffic.CalculateWatchStats(r.reports, r.begin, r.end)
	fmt.Printf("  %d operations answered, %d failed, in %.0f s; %d watches, %d events, %d progress notifications; %d requests in the log\n",
		stats.Successes, stats.Failures, stats.Period.Seconds(), watch.Requests, watch.Events, watch.ProgressNotifies, len(requests))
	for _, f := range r.faults {
		during := traffic.CalculateStats(r.reports, f.begin, f.end)
		fmt.Printf("  %s (%s): meanwhile %d answered, %d failed\n", f.what, f.name, during.Successes, during.Failures)
		if during.Successes == 0 {
			return fmt.Errorf("%s (%s): nothing was answered meanwhile", f.what, f.name)
		}
	}
	if stats.Successes < 500 || watch.Events < 500 || watch.ProgressNotifies == 0 {
		return fmt.Errorf("too little happened for a verdict")
	}
	newest := report.OperationsMaxRevision(r.reports)
	if _, err := model.NewReplay(requests).StateForRevision(newest); err != nil {
		return fmt.Errorf("the log ends before what clients were answered: %w", err)
	}
	return nil
}

// save writes the clients' reports as etcd does, so that each lie is told to a copy of its own.
func save(directory string, unique bool, reports []report.ClientReport) error {
	r, err := report.NewTestReport(zap.NewNop(), directory, nil, &report.TrafficDetail{ExpectUniqueRevision: unique})
	if err != nil {
		return err
	}
	r.SetClientReports(reports)
	return r.SaveEtcdData()
}

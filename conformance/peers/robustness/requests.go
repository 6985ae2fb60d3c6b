package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os/exec"

	"go.etcd.io/etcd/tests/v3/robustness/model"
)

// logged is one line of conformance's `requests`: a request that took effect, in the chain's order.
type logged struct {
	Height int64    `json:"height"`
	Op     loggedOp `json:"op"`
	line   string
}

// loggedOp has one field set.
type loggedOp struct {
	Put         *loggedPut   `json:"put"`
	Delete      *loggedRange `json:"delete"`
	Range       *loggedRange `json:"range"`
	Txn         *loggedTxn   `json:"txn"`
	Compact     *int64       `json:"compact"`
	LeaseGrant  *int64       `json:"lease_grant"`
	LeaseRevoke *int64       `json:"lease_revoke"`
	// Other changes no key: a renewed lease, a checkpoint.
	Other string `json:"other"`
}

// Keys and values are hexadecimal.
type loggedPut struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Lease int64  `json:"lease"`
}

type loggedRange struct {
	Key      string `json:"key"`
	RangeEnd string `json:"range_end"`
	Limit    int64  `json:"limit"`
	KeysOnly bool   `json:"keys_only"`
}

type loggedTxn struct {
	Compares []loggedCompare `json:"compares"`
	Success  []loggedOp      `json:"success"`
	Failure  []loggedOp      `json:"failure"`
}

type loggedCompare struct {
	Key     string `json:"key"`
	Mod     *int64 `json:"mod"`
	Version *int64 `json:"version"`
}

// readLog reads what a stopped replica with this home executed.
func readLog(reader, home string) ([]logged, error) {
	command := exec.Command(reader, home)
	var errors bytes.Buffer
	command.Stderr = &errors
	said, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", reader, home, err, errors.String())
	}
	var found []logged
	lines := bufio.NewScanner(bytes.NewReader(said))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		one := logged{line: lines.Text()}
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("%s: %w in %q", reader, err, lines.Text())
		}
		found = append(found, one)
	}
	return found, lines.Err()
}

// agree makes sure that all replicas executed the same, as far as each got, and returns the longest.
func agree(all [][]logged, names []string) ([]logged, error) {
	var longest []logged
	for _, one := range all {
		if len(one) > len(longest) {
			longest = one
		}
	}
	for place, one := range all {
		if len(one) == 0 {
			return nil, fmt.Errorf("%s executed nothing", names[place])
		}
		for at := range one {
			if one[at].line != longest[at].line {
				return nil, fmt.Errorf("request %d differs: %s has %s, another %s", at, names[place], one[at].line, longest[at].line)
			}
		}
	}
	return longest, nil
}

// toModel turns them into what etcd's model executes. Whatever the traffic does not do is an error: a
// request that is left out would be blamed on the replicas.
func toModel(all []logged) ([]model.EtcdRequest, error) {
	var requests []model.EtcdRequest
	for _, one := range all {
		if one.Op.Other != "" {
			continue
		}
		request, err := one.Op.request()
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, one.line)
		}
		requests = append(requests, request)
	}
	return requests, nil
}

func (op *loggedOp) request() (model.EtcdRequest, error) {
	switch {
	case op.Compact != nil:
		return model.EtcdRequest{Type: model.Compact, Compact: &model.CompactRequest{Revision: *op.Compact}}, nil
	case op.LeaseGrant != nil:
		return model.EtcdRequest{Type: model.LeaseGrant, LeaseGrant: &model.LeaseGrantRequest{LeaseID: *op.LeaseGrant}}, nil
	case op.LeaseRevoke != nil:
		return model.EtcdRequest{Type: model.LeaseRevoke, LeaseRevoke: &model.LeaseRevokeRequest{LeaseID: *op.LeaseRevoke}}, nil
	case op.Txn != nil:
		txn, err := op.Txn.request()
		return model.EtcdRequest{Type: model.Txn, Txn: txn}, err
	default:
		one, err := op.operation()
		txn := &model.TxnRequest{OperationsOnSuccess: []model.EtcdOperation{one}}
		return model.EtcdRequest{Type: model.Txn, Txn: txn}, err
	}
}

func (txn *loggedTxn) request() (*model.TxnRequest, error) {
	request := &model.TxnRequest{}
	for _, compare := range txn.Compares {
		key, err := text(compare.Key)
		if err != nil {
			return nil, err
		}
		condition := model.EtcdCondition{Key: key}
		switch {
		case compare.Mod != nil:
			condition.ExpectedRevision = *compare.Mod
		case compare.Version != nil:
			condition.ExpectedVersion = *compare.Version
		default:
			return nil, fmt.Errorf("the model knows no such compare")
		}
		request.Conditions = append(request.Conditions, condition)
	}
	var err error
	if request.OperationsOnSuccess, err = operations(txn.Success); err != nil {
		return nil, err
	}
	request.OperationsOnFailure, err = operations(txn.Failure)
	return request, err
}

func operations(ops []loggedOp) (operations []model.EtcdOperation, err error) {
	for _, op := range ops {
		operation, err := op.operation()
		if err != nil {
			return nil, err
		}
		operations = append(operations, operation)
	}
	return operations, nil
}

func (op *loggedOp) operation() (model.EtcdOperation, error) {
	switch {
	case op.Put != nil:
		key, err := text(op.Put.Key)
		if err != nil {
			return model.EtcdOperation{}, err
		}
		value, err := text(op.Put.Value)
		options := model.PutOptions{Key: key, Value: model.ToValueOrHash(value), LeaseID: op.Put.Lease}
		return model.EtcdOperation{Type: model.PutOperation, Put: options}, err
	case op.Delete != nil:
		if op.Delete.RangeEnd != "" {
			return model.EtcdOperation{}, fmt.Errorf("the model deletes no ranges")
		}
		key, err := text(op.Delete.Key)
		return model.EtcdOperation{Type: model.DeleteOperation, Delete: model.DeleteOptions{Key: key}}, err
	case op.Range != nil:
		start, err := text(op.Range.Key)
		if err != nil {
			return model.EtcdOperation{}, err
		}
		end, err := text(op.Range.RangeEnd)
		options := model.RangeOptions{Start: start, End: end, Limit: op.Range.Limit, KeysOnly: op.Range.KeysOnly}
		return model.EtcdOperation{Type: model.RangeOperation, Range: options}, err
	default:
		return model.EtcdOperation{}, fmt.Errorf("the model knows no such operation")
	}
}

func text(hexadecimal string) (string, error) {
	bytes, err := hex.DecodeString(hexadecimal)
	return string(bytes), err
}

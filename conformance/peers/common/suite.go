//go:build e2e

// Package common pins etcd's own suite: what it needs to build is in go.mod and go.sum.
package common

import _ "go.etcd.io/etcd/tests/v3/framework/e2e"

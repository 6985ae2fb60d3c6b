// Command descriptors prints, as JSON, the wire contract compiled into etcd's own Go modules:
// services with their methods, messages with their fields, enums with their values. A test compares
// it with proto/etcd, so that a wrong field number there cannot survive.
package main

import (
	"encoding/json"
	"log"
	"os"
	"sort"

	_ "go.etcd.io/etcd/api/v3/authpb"
	_ "go.etcd.io/etcd/api/v3/etcdserverpb"
	_ "go.etcd.io/etcd/api/v3/mvccpb"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// packages are the ones a client of etcd can meet on the wire.
var packages = map[protoreflect.FullName]bool{
	"authpb": true, "etcdserverpb": true, "mvccpb": true, "v3electionpb": true, "v3lockpb": true,
}

// contract maps a full name to what the wire depends on, one line per method, field or value.
type contract struct {
	Services map[string][]string `json:"services"`
	Messages map[string][]string `json:"messages"`
	Enums    map[string][]string `json:"enums"`
}

func main() {
	found := contract{map[string][]string{}, map[string][]string{}, map[string][]string{}}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if packages[file.Package()] {
			services(&found, file.Services())
			messages(&found, file.Messages())
			enums(&found, file.Enums())
		}
		return true
	})
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(found); err != nil {
		log.Fatal(err)
	}
}

func services(found *contract, list protoreflect.ServiceDescriptors) {
	for i := 0; i < list.Len(); i++ {
		var lines []string
		for j := 0; j < list.Get(i).Methods().Len(); j++ {
			method := list.Get(i).Methods().Get(j)
			lines = append(lines, string(method.Name())+
				"("+stream(method.IsStreamingClient())+string(method.Input().FullName())+") returns ("+
				stream(method.IsStreamingServer())+string(method.Output().FullName())+")")
		}
		found.Services[string(list.Get(i).FullName())] = sorted(lines)
	}
}

func stream(yes bool) string {
	if yes {
		return "stream "
	}
	return ""
}

func messages(found *contract, list protoreflect.MessageDescriptors) {
	for i := 0; i < list.Len(); i++ {
		message := list.Get(i)
		lines := []string{}
		for j := 0; j < message.Fields().Len(); j++ {
			lines = append(lines, field(message.Fields().Get(j)))
		}
		found.Messages[string(message.FullName())] = sorted(lines)
		messages(found, message.Messages())
		enums(found, message.Enums())
	}
}

func field(f protoreflect.FieldDescriptor) string {
	kind := f.Kind().String()
	if f.Message() != nil {
		kind = string(f.Message().FullName())
	}
	if f.Enum() != nil {
		kind = string(f.Enum().FullName())
	}
	number, err := json.Marshal(f.Number())
	if err != nil {
		log.Fatal(err)
	}
	line := string(f.Name()) + " = " + string(number) + " " + f.Cardinality().String() + " " + kind
	if f.ContainingOneof() != nil {
		line += " in " + string(f.ContainingOneof().Name())
	}
	if f.IsPacked() {
		line += " packed"
	}
	return line
}

func enums(found *contract, list protoreflect.EnumDescriptors) {
	for i := 0; i < list.Len(); i++ {
		var lines []string
		for j := 0; j < list.Get(i).Values().Len(); j++ {
			value := list.Get(i).Values().Get(j)
			number, err := json.Marshal(value.Number())
			if err != nil {
				log.Fatal(err)
			}
			lines = append(lines, string(value.Name())+" = "+string(number))
		}
		found.Enums[string(list.Get(i).FullName())] = sorted(lines)
	}
}

func sorted(lines []string) []string {
	sort.Strings(lines)
	return lines
}

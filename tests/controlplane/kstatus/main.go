// Command kstatus says what Flux, Argo CD and kubectl plugins make of an object: its kstatus.
//
// It reads one object as JSON or YAML on stdin and prints {"status": ..., "message": ...}.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

func run() error {
	given, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	object, err := yaml.YAMLToJSON(given)
	if err != nil {
		return err
	}
	var resource unstructured.Unstructured
	if err := resource.UnmarshalJSON(object); err != nil {
		return err
	}
	computed, err := status.Compute(&resource)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]string{
		"status":  computed.Status.String(),
		"message": computed.Message,
	})
}

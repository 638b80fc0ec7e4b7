// Command controlplane is etcd, the Kubernetes control plane, the kubelet and kubectl in one binary.
//
// It is what Fleetward's tests and its cluster demo run against where there is no Docker: the real programs, built from
// their own modules, told apart by the name the binary is called by (or by its first argument).
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var programs = map[string]func() *cobra.Command{
	"kube-apiserver":          func() *cobra.Command { return apiserver.NewAPIServerCommand() },
	"kube-controller-manager": func() *cobra.Command { return controllermanager.NewControllerManagerCommand() },
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(genericapiserver.SetupSignalContext()) },
	"kubectl":                 func() *cobra.Command { return cmd.NewDefaultKubectlCommand() },
}

func main() {
	program := filepath.Base(os.Args[0])
	if program != "etcd" && programs[program] == nil && len(os.Args) > 1 {
		os.Args = os.Args[1:]
		program = filepath.Base(os.Args[0])
	}
	if program == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	command, known := programs[program]
	if !known {
		names := []string{"etcd"}
		for name := range programs {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Fprintf(os.Stderr, "controlplane: %q is none of %s\n", program, strings.Join(names, ", "))
		os.Exit(2)
	}
	os.Exit(cli.Run(command()))
}

// Renders a chart as `helm template` does, for machines without Helm: the same template language with the same functions.
//
//	GO111MODULE=off go run render.go CHART RELEASE NAMESPACE [KEY=VALUE...]
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v3"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func read(path string) map[string]interface{} {
	text, err := os.ReadFile(path)
	must(err)
	var value map[string]interface{}
	must(yaml.Unmarshal(text, &value))
	return value
}

func set(values map[string]interface{}, path []string, value interface{}) {
	if len(path) == 1 {
		values[path[0]] = value
		return
	}
	set(values[path[0]].(map[string]interface{}), path[1:], value)
}

func main() {
	chart, release, namespace := os.Args[1], os.Args[2], os.Args[3]
	values := read(filepath.Join(chart, "values.yaml"))
	for _, pair := range os.Args[4:] {
		key, text, _ := strings.Cut(pair, "=")
		var value interface{}
		must(yaml.Unmarshal([]byte(text), &value))
		set(values, strings.Split(key, "."), value)
	}
	about := map[string]interface{}{}
	for key, value := range read(filepath.Join(chart, "Chart.yaml")) {
		about[strings.ToUpper(key[:1])+key[1:]] = value
	}
	root := template.New("chart").Option("missingkey=zero")
	functions := sprig.TxtFuncMap()
	functions["toYaml"] = func(value interface{}) string {
		text, err := yaml.Marshal(value)
		must(err)
		return strings.TrimSuffix(string(text), "\n")
	}
	functions["include"] = func(name string, data interface{}) (string, error) {
		var out strings.Builder
		err := root.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	// There is no cluster to look into.
	functions["lookup"] = func(...string) map[string]interface{} { return map[string]interface{}{} }
	root.Funcs(functions)
	files, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	must(err)
	sort.Strings(files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(err)
		template.Must(root.New(filepath.Base(file)).Parse(string(text)))
	}
	data := map[string]interface{}{
		"Values":  values,
		"Chart":   about,
		"Release": map[string]interface{}{"Name": release, "Namespace": namespace, "Service": "Helm"},
	}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var out strings.Builder
		must(root.ExecuteTemplate(&out, name, data))
		if name == "NOTES.txt" {
			fmt.Fprintln(os.Stderr, out.String())
		} else if strings.TrimSpace(out.String()) != "" {
			fmt.Printf("---\n# Source: %s\n%s\n", name, out.String())
		}
	}
}

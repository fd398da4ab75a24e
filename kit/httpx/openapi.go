package httpx

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"
	"go.yaml.in/yaml/v3"

	"github.com/openmep/mep/api/openapi"
	"github.com/openmep/mep/kit/errs"
)

// MountOpenAPI serves the API descriptions at /openapi/: a list of them, and each as YAML and as JSON.
func MountOpenAPI(r *gin.Engine) {
	asJSON := sync.OnceValues(convertDocuments)
	g := r.Group("/openapi")
	get := func(path string, h Handler) {
		g.GET(path, Handle(h))
		g.HEAD(path, Handle(h))
	}
	get("/", func(c *gin.Context) error {
		type document struct {
			Name string `json:"name"`
			YAML string `json:"yaml"`
			JSON string `json:"json"`
		}
		list := []document{}
		for _, name := range openapi.Documents() {
			list = append(list, document{name, "/openapi/" + name + ".yaml", "/openapi/" + name + ".json"})
		}
		return JSON(c, http.StatusOK, map[string]any{"documents": list})
	})
	get("/:file", func(c *gin.Context) error {
		name, ext, _ := strings.Cut(c.Param("file"), ".")
		switch data, ok := openapi.YAML(name); {
		case ok && ext == "yaml":
			c.Data(http.StatusOK, "application/yaml", data)
			return nil
		case ok && ext == "json":
			docs, err := asJSON()
			if err != nil {
				return err
			}
			Raw(c, http.StatusOK, docs[name])
			return nil
		}
		return errs.New(errs.NotFound, "there is no API description %q: /openapi/ lists them", c.Param("file"))
	})
}

func convertDocuments() (map[string][]byte, error) {
	docs := make(map[string][]byte)
	for _, name := range openapi.Documents() {
		data, _ := openapi.YAML(name)
		var v any
		if err := yaml.Unmarshal(data, &v); err != nil {
			return nil, err
		}
		var err error
		if docs[name], err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	return docs, nil
}

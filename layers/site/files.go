package site

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

const (
	indexPath    = "index.html"
	assetsPrefix = "assets/" // the page's build puts a hash of the content into the names below it

	// Smaller files gain less than the header costs.
	minCompressed = 1 << 10
)

// file is one file of the page, compressed once since it never changes.
type file struct {
	plain, gzip       []byte // gzip is nil where it is not smaller
	tag               string // of the plain bytes, without quotes
	contentType, keep string
}

func load(page fs.FS) (map[string]file, error) {
	files := make(map[string]file)
	err := fs.WalkDir(page, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
			return err
		}
		body, err := fs.ReadFile(page, name)
		if err != nil {
			return err
		}
		files[name], err = newFile(name, body)
		return err
	})
	return files, err
}

func newFile(name string, body []byte) (file, error) {
	sum := sha256.Sum256(body)
	f := file{
		plain:       body,
		tag:         hex.EncodeToString(sum[:12]),
		contentType: contentType(name),
		keep:        "no-cache", // asks each time whether it is still the same
	}
	if strings.HasPrefix(name, assetsPrefix) {
		f.keep = "public, max-age=31536000, immutable"
	}
	if len(body) < minCompressed {
		return f, nil
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return file{}, err
	}
	if _, err = z.Write(body); err != nil {
		return file{}, err
	}
	if err = z.Close(); err != nil {
		return file{}, fmt.Errorf("compress %s: %w", name, err)
	}
	if b.Len() < len(body) {
		f.gzip = b.Bytes()
	}
	return f, nil
}

// contentType is fixed for what a page consists of: the host's own table would make it differ between machines.
func contentType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".woff2":
		return "font/woff2"
	case ".webmanifest":
		return "application/manifest+json"
	default:
		if t := mime.TypeByExtension(ext); t != "" {
			return t
		}
		return "application/octet-stream"
	}
}

func (f file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", f.keep)
	body, tag := f.plain, f.tag
	if f.gzip != nil {
		h.Add("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			h.Set("Content-Encoding", "gzip")
			body, tag = f.gzip, f.tag+"-gzip"
		}
	}
	h.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// acceptsGzip reads Accept-Encoding (RFC 9110, 12.5.3) as far as browsers use it: gzip is named and not with q=0.
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q, found := strings.CutPrefix(strings.TrimSpace(weight), "q=")
			return !found || strings.Trim(q, "0.") != ""
		}
	}
	return false
}

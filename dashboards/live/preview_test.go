package live

import (
	"bytes"
	"image"
	_ "image/png"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gochat/dashboards/preview"
)

// TestPreviews draws every dashboard of a system under load; none of the pictures is empty. Where DASHBOARDS_PREVIEWS names a
// directory they are kept there.
func TestPreviews(t *testing.T) {
	s := Up(t, Build(t))
	prometheus := Scrape(t, nil, s.Admin())
	length := 15 * time.Second
	into := os.Getenv("DASHBOARDS_PREVIEWS")
	if into != "" {
		length = time.Minute
		if err := os.MkdirAll(into, 0o755); err != nil {
			t.Fatal(err)
		}
	} else {
		into = t.TempDir()
	}
	began := time.Now()
	var load sync.WaitGroup
	load.Go(func() {
		s.Bench(t, "fanout", "--members", "300", "--users", "100", "--rate", "20", "--for", length.String(), "--user-prefix", "fan-")
	})
	load.Go(func() {
		s.Bench(t, "rooms", "--rooms", "20", "--members", "10", "--users", "100", "--rate", "40", "--for", length.String(), "--user-prefix", "room-")
	})
	load.Go(func() {
		s.Bench(t, "private", "--pairs", "50", "--rate", "50", "--transport", "tcp", "--for", length.String(), "--user-prefix", "pair-")
	})
	load.Wait()
	files, err := filepath.Glob("../*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	o := preview.Options{API: prometheus.api, From: began, To: time.Now(), Rows: 24, Fill: func(expr string) string { return For(expr, "", 10*time.Second) }}
	for _, file := range files {
		board, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var drawn bytes.Buffer
		if err := preview.Render(t.Context(), board, o, &drawn); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		name := filepath.Base(file)
		if err := os.WriteFile(filepath.Join(into, name[:len(name)-len(".json")]+".png"), drawn.Bytes(), 0o644); err != nil {
			t.Error(err)
		}
		picture, _, err := image.Decode(&drawn)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if n := colours(picture); n < 30 {
			t.Errorf("%s: a picture of %d colours", file, n)
		}
	}
}

// colours is how many different ones a picture has.
func colours(picture image.Image) int {
	seen := make(map[[3]uint32]bool)
	for x := picture.Bounds().Min.X; x < picture.Bounds().Max.X; x++ {
		for y := picture.Bounds().Min.Y; y < picture.Bounds().Max.Y; y++ {
			r, g, b, _ := picture.At(x, y).RGBA()
			seen[[3]uint32{r, g, b}] = true
		}
	}
	return len(seen)
}

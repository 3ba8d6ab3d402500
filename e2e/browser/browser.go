// Package browser drives the chat page in Chromium, as a person would. It is for tests alone.
package browser

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience bounds every wait: much longer than anything takes.
const patience = 60 * time.Second

// eventually waits until it is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// Browser is a Chromium with a profile of its own that shows the chat page. Its methods end the test on failure, so
// they are called from the test's goroutine alone.
type Browser struct {
	Tab context.Context // the driver keeps the tab in it

	mu     sync.Mutex
	faults []string // errors, warnings and violations of its policy that the page gave cause for
}

// Open starts a Chromium on the URL, with what flags there are besides. It ends with the test.
func Open(t testing.TB, url string, flags ...chromedp.ExecAllocatorOption) *Browser {
	t.Helper()
	allocator, release := chromedp.NewExecAllocator(context.Background(), slices.Concat(chromedp.DefaultExecAllocatorOptions[:], flags, []chromedp.ExecAllocatorOption{
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("blink-settings", "availablePointerTypes=4,primaryPointerType=4,availableHoverTypes=2,primaryHoverType=2"), // a mouse
	})...)
	t.Cleanup(release)
	b := &Browser{}
	var stop context.CancelFunc
	b.Tab, stop = chromedp.NewContext(allocator, chromedp.WithListener(b.listen))
	t.Cleanup(stop)
	t.Cleanup(func() {
		if t.Failed() {
			text, err := chromedp.Run(b.Tab, chromedp.Evaluate[string]("document.body.innerText"))
			t.Logf("what a page shows (%v):\n%s", err, text)
		}
	})
	// Under the tab's own context: the browser ends with that of its first action.
	if err := chromedp.Do(b.Tab, chromedp.EmulateViewport(1280, 800)); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	b.Do(t, chromedp.Navigate(url))
	return b
}

// listen records faults in the order in which they come.
func (b *Browser) listen(event any) {
	var fault string
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning || e.Entry.Source == log.EntrySourceSecurity {
			fault = fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			fault = "console:"
			for _, arg := range e.Args {
				fault += fmt.Sprintf(" %s%s", arg.Value, arg.Description)
			}
		}
	case *runtime.EventExceptionThrown:
		fault = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			fault += " " + e.ExceptionDetails.Exception.Description
		}
	}
	if fault != "" {
		b.mu.Lock()
		b.faults = append(b.faults, fault)
		b.mu.Unlock()
	}
}

// Forgive forgets the faults with the text that were recorded so far, and answers whether there were any.
func (b *Browser) Forgive(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	var left []string
	for _, fault := range b.faults {
		if !strings.Contains(fault, text) {
			left = append(left, fault)
		}
	}
	had := len(left) < len(b.faults)
	b.faults = left
	return had
}

// Provoked waits for a fault that the test has caused on purpose.
func (b *Browser) Provoked(t testing.TB, fault string) {
	t.Helper()
	eventually(t, "a fault with "+fault, func() bool { return b.Forgive(fault) })
}

// Faultless fails the test for every fault that was not forgiven.
func (b *Browser) Faultless(t testing.TB) {
	t.Helper()
	Eval[bool](t, b, "true") // what was on its way from the page comes before the answer
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		t.Errorf("the page gave cause for %q", fault)
	}
}

// Do does one thing after another as a person would, each as soon as it is possible.
func (b *Browser) Do(t testing.TB, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	for i, step := range steps {
		ctx, cancel := context.WithTimeout(b.Tab, patience)
		err := chromedp.Do(ctx, step)
		cancel()
		if err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
	}
}

// Eval answers what a JavaScript expression is in the page.
func Eval[T any](t testing.TB, b *Browser, expression string, args ...any) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.Tab, patience)
	defer cancel()
	expression = fmt.Sprintf(expression, args...)
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("evaluate %s: %v", expression, err)
	}
	return v
}

// Click clicks what has the test id, as soon as it is there and nothing covers it.
func (b *Browser) Click(t testing.TB, id string) {
	t.Helper()
	b.ClickOn(t, `[data-testid="`+id+`"]`)
}

// ClickOn is Click for the first element that a CSS selector finds.
func (b *Browser) ClickOn(t testing.TB, selector string) {
	t.Helper()
	// The place is asked for here: the driver's own copy of the page is not safe to read while the page changes.
	var place []float64
	eventually(t, selector+" to click on", func() bool {
		place = Eval[[]float64](t, b, `(e => {
			if (!e || e.disabled) return null
			e.scrollIntoView({block: 'nearest'})
			const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2
			return e.contains(document.elementFromPoint(x, y)) ? [x, y] : null
		})(document.querySelector(%q))`, selector)
		return place != nil
	})
	b.Do(t, chromedp.MouseClickXY(place[0], place[1]))
}

// Write types the text in place of what a field holds.
func (b *Browser) Write(t testing.TB, id, text string) {
	t.Helper()
	b.Click(t, id)
	Eval[bool](t, b, `(document.activeElement.select(), true)`)
	b.Do(t, chromedp.KeyEvent(text))
}

// Text is what the elements with the test id show, "" if there is none.
func (b *Browser) Text(t testing.TB, id string) string {
	t.Helper()
	return Eval[string](t, b, `[...document.querySelectorAll('[data-testid=%q]')].map(e => e.innerText).join('\n')`, id)
}

// Shows waits until what has the test id shows the text; "" waits until it is gone.
func (b *Browser) Shows(t testing.TB, id, want string) {
	t.Helper()
	var got string
	defer func() {
		if got != want {
			t.Logf("%s shows %q, want %q", id, got, want)
		}
	}()
	eventually(t, id+" shows "+want, func() bool { got = b.Text(t, id); return got == want })
}

// Shown is one bubble.
type Shown struct {
	Seq   int // 0 until it is stored
	Text  string
	Mine  bool
	State string
}

// Messages are the bubbles of the conversation that is open, from above.
func (b *Browser) Messages(t testing.TB) []Shown {
	t.Helper()
	return Eval[[]Shown](t, b, `[...document.querySelectorAll('[data-testid="message"]')].map(e => ({
		Seq: Number(e.dataset.seq ?? 0), Text: e.querySelector('[data-testid="message-text"]').textContent,
		Mine: e.classList.contains('mine'), State: e.dataset.state }))`)
}

// Texts are those of the messages.
func (b *Browser) Texts(t testing.TB) []string {
	t.Helper()
	var texts []string
	for _, m := range b.Messages(t) {
		texts = append(texts, m.Text)
	}
	return texts
}

// Login fills in the form that is shown.
func (b *Browser) Login(t testing.TB, name, password string) {
	t.Helper()
	b.Write(t, "login-name", name)
	b.Write(t, "login-password", password)
	b.Click(t, "login-submit")
}

// Say sends a message to the conversation that is open.
func (b *Browser) Say(t testing.TB, text string) {
	t.Helper()
	b.Write(t, "composer", text)
	b.Click(t, "send")
}

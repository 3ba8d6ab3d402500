package layers

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"gochat/layers/internal/testclient"
)

// browser is a Chromium with a profile of its own that shows the chat page. Its methods end the test on failure, so
// they are called from the test's goroutine alone.
type browser struct {
	tab context.Context // the driver keeps the tab in it

	mu     sync.Mutex
	faults []string // errors, warnings and violations of its policy that the page gave cause for
}

// openBrowser starts a Chromium on the page, which must be in the binary. It ends with the test.
func openBrowser(t testing.TB, page string) *browser {
	t.Helper()
	answer, err := http.Get("http://" + page + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode == http.StatusServiceUnavailable {
		t.Fatal("the page is not built: run make page, then this test again")
	}
	allocator, release := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("blink-settings", "availablePointerTypes=4,primaryPointerType=4,availableHoverTypes=2,primaryHoverType=2"), // a mouse
	)...)
	t.Cleanup(release)
	b := &browser{}
	var stop context.CancelFunc
	b.tab, stop = chromedp.NewContext(allocator, chromedp.WithListener(b.listen))
	t.Cleanup(stop)
	t.Cleanup(func() {
		if t.Failed() {
			text, err := chromedp.Run(b.tab, chromedp.Evaluate[string]("document.body.innerText"))
			t.Logf("what a page shows (%v):\n%s", err, text)
		}
	})
	// Under the tab's own context: the browser ends with that of its first action.
	if err := chromedp.Do(b.tab, chromedp.EmulateViewport(1280, 800)); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	b.do(t, chromedp.Navigate("http://"+page+"/"))
	return b
}

// listen records faults in the order in which they come.
func (b *browser) listen(event any) {
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

// forgive forgets the faults with the text that were recorded so far, and answers whether there were any.
func (b *browser) forgive(text string) bool {
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

// provoked waits for a fault that the test has caused on purpose.
func (b *browser) provoked(t testing.TB, fault string) {
	t.Helper()
	eventually(t, "a fault with "+fault, func() bool { return b.forgive(fault) })
}

// faultless fails the test for every fault that was not forgiven.
func (b *browser) faultless(t testing.TB) {
	t.Helper()
	eval[bool](t, b, "true") // what was on its way from the page comes before the answer
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		t.Errorf("the page gave cause for %q", fault)
	}
}

// do does one thing after another as a person would, each as soon as it is possible.
func (b *browser) do(t testing.TB, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	for i, step := range steps {
		ctx, cancel := context.WithTimeout(b.tab, testclient.Patience)
		err := chromedp.Do(ctx, step)
		cancel()
		if err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
	}
}

// eval answers what a JavaScript expression is in the page.
func eval[T any](t testing.TB, b *browser, expression string, args ...any) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.tab, testclient.Patience)
	defer cancel()
	expression = fmt.Sprintf(expression, args...)
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("evaluate %s: %v", expression, err)
	}
	return v
}

// click clicks what has the test id, as soon as it is there and nothing covers it.
func (b *browser) click(t testing.TB, id string) {
	t.Helper()
	b.clickOn(t, `[data-testid="`+id+`"]`)
}

// clickOn is click for the first element that a CSS selector finds.
func (b *browser) clickOn(t testing.TB, selector string) {
	t.Helper()
	// The place is asked for here: the driver's own copy of the page is not safe to read while the page changes.
	var place []float64
	eventually(t, selector+" to click on", func() bool {
		place = eval[[]float64](t, b, `(e => {
			if (!e || e.disabled) return null
			e.scrollIntoView({block: 'nearest'})
			const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2
			return e.contains(document.elementFromPoint(x, y)) ? [x, y] : null
		})(document.querySelector(%q))`, selector)
		return place != nil
	})
	b.do(t, chromedp.MouseClickXY(place[0], place[1]))
}

// write types the text in place of what a field holds.
func (b *browser) write(t testing.TB, id, text string) {
	t.Helper()
	b.click(t, id)
	eval[bool](t, b, `(document.activeElement.select(), true)`)
	b.do(t, chromedp.KeyEvent(text))
}

// text is what the elements with the test id show, "" if there is none.
func (b *browser) text(t testing.TB, id string) string {
	t.Helper()
	return eval[string](t, b, `[...document.querySelectorAll('[data-testid=%q]')].map(e => e.innerText).join('\n')`, id)
}

// shows waits until what has the test id shows the text; "" waits until it is gone.
func (b *browser) shows(t testing.TB, id, want string) {
	t.Helper()
	var got string
	defer func() {
		if got != want {
			t.Logf("%s shows %q, want %q", id, got, want)
		}
	}()
	eventually(t, id+" shows "+want, func() bool { got = b.text(t, id); return got == want })
}

// shown is one bubble.
type shown struct {
	Seq   int // 0 until it is stored
	Text  string
	Mine  bool
	State string
}

// messages are the bubbles of the conversation that is open, from above.
func (b *browser) messages(t testing.TB) []shown {
	t.Helper()
	return eval[[]shown](t, b, `[...document.querySelectorAll('[data-testid="message"]')].map(e => ({
		Seq: Number(e.dataset.seq ?? 0), Text: e.querySelector('[data-testid="message-text"]').textContent,
		Mine: e.classList.contains('mine'), State: e.dataset.state }))`)
}

// texts are those of the messages.
func (b *browser) texts(t testing.TB) []string {
	t.Helper()
	var texts []string
	for _, m := range b.messages(t) {
		texts = append(texts, m.Text)
	}
	return texts
}

// login fills in the form that is shown.
func (b *browser) login(t testing.TB, name, password string) {
	t.Helper()
	b.write(t, "login-name", name)
	b.write(t, "login-password", password)
	b.click(t, "login-submit")
}

// say sends a message to the conversation that is open.
func (b *browser) say(t testing.TB, text string) {
	t.Helper()
	b.write(t, "composer", text)
	b.click(t, "send")
}

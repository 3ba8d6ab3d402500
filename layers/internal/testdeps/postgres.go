// Package testdeps starts the real dependencies that tests run against.
package testdeps

import (
	"bytes"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Postgres starts a PostgreSQL server of its own for the test and stops it when the test ends. The URL is that of
// its maintenance database, as a superuser.
func Postgres(t testing.TB) (url string) {
	t.Helper()
	return StartPostgres(t).URL
}

// PostgresServer is one server, with its data in a temporary directory and reached through a socket in it: no
// port to find, and the address stays the same over a restart.
type PostgresServer struct {
	URL string // superuser, database postgres

	bin, dir string
	server   *exec.Cmd // nil while stopped
	exited   chan struct{}
	log      *bytes.Buffer
	as       *syscall.SysProcAttr
	settings []string
}

// StartPostgres makes and starts a server; it is stopped and its data removed when the test ends. The binaries
// are found as Debian installs them, the newest version first. It does not wait for the disk, since no test pulls the plug,
// unless the settings (name=value) say so.
func StartPostgres(t testing.TB, settings ...string) *PostgresServer {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		t.Fatal("find PostgreSQL: no /usr/lib/postgresql/*/bin; install the package postgresql")
	}
	dir, err := os.MkdirTemp("", "gochat-postgres-")
	if err != nil {
		t.Fatalf("make PostgreSQL directory: %v", err)
	}
	p := &PostgresServer{
		settings: settings,
		URL:      "postgres://postgres@/postgres?" + url.Values{"host": {dir}, "sslmode": {"disable"}}.Encode(),
		bin:      found[len(found)-1], dir: dir, as: &syscall.SysProcAttr{},
	}
	t.Cleanup(func() {
		p.Stop(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove PostgreSQL directory: %v", err)
		}
	})
	if os.Geteuid() == 0 {
		p.becomePostgres(t) // it refuses to run as root
	}
	initdb := exec.Command(filepath.Join(p.bin, "initdb"), "--pgdata", filepath.Join(dir, "data"), "--username", "postgres",
		"--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = p.as, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.Start(t)
	return p
}

func (p *PostgresServer) becomePostgres(t testing.TB) {
	t.Helper()
	account, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("find the user to run PostgreSQL as: %v", err)
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		t.Fatalf("read uid: %v", err)
	}
	gid, err := strconv.Atoi(account.Gid)
	if err != nil {
		t.Fatalf("read gid: %v", err)
	}
	if err := os.Chown(p.dir, uid, gid); err != nil {
		t.Fatalf("hand over PostgreSQL directory: %v", err)
	}
	p.as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// Start starts the server again, at the same address, and returns once it accepts connections.
func (p *PostgresServer) Start(t testing.TB) {
	t.Helper()
	p.log = &bytes.Buffer{}
	server := exec.Command(filepath.Join(p.bin, "postgres"), "-D", filepath.Join(p.dir, "data"), "-k", p.dir,
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200")
	for _, s := range p.settings {
		server.Args = append(server.Args, "-c", s)
	}
	server.SysProcAttr, server.Dir, server.Stdout, server.Stderr = p.as, p.dir, p.log, p.log
	if err := server.Start(); err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	p.server, p.exited = server, make(chan struct{})
	go func(exited chan<- struct{}) {
		_ = server.Wait() // how it ends says nothing
		close(exited)
	}(p.exited)
	deadline := time.Now().Add(time.Minute)
	for {
		ready := exec.Command(filepath.Join(p.bin, "pg_isready"), "--quiet", "--host", p.dir)
		ready.Dir = p.dir
		if ready.Run() == nil {
			return
		}
		if time.Now().After(deadline) {
			p.Stop(t)
			t.Fatalf("PostgreSQL is not ready:\n%s", p.log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Stop ends the server and its connections at once, without a word to its clients, and waits until it is gone.
// A server that is stopped already stays so.
func (p *PostgresServer) Stop(t testing.TB) {
	t.Helper()
	if p.server == nil {
		return
	}
	if err := p.server.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Errorf("stop PostgreSQL: %v", err)
	}
	<-p.exited
	p.server = nil
}

// Kill ends the server and everything it has started by SIGKILL, and returns once Start can start it again.
func (p *PostgresServer) Kill(t testing.TB) {
	t.Helper()
	if p.server == nil {
		return
	}
	processes := append(Children(p.server.Process.Pid), p.server.Process.Pid)
	for _, pid := range processes {
		_ = syscall.Kill(pid, syscall.SIGKILL) // one that has ended is as dead
	}
	<-p.exited
	p.server = nil
	// While one of them is there, another server on the same data does not start.
	for _, pid := range processes {
		for deadline := time.Now().Add(startLimit); running(pid); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d of PostgreSQL does not end", pid)
			}
		}
	}
}

// PID is that of the server, which has children.
func (p *PostgresServer) PID() int { return p.server.Process.Pid }

// Children are the processes whose parent that is.
func Children(pid int) []int {
	of := strconv.Itoa(pid)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var found []int
	for _, stat := range stats {
		content, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		// "pid (name) state parent …", where the name may hold anything.
		if at := bytes.LastIndexByte(content, ')'); at > 0 {
			if fields := strings.Fields(string(content[at+1:])); len(fields) > 1 && fields[1] == of {
				if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(stat))); err == nil {
					found = append(found, pid)
				}
			}
		}
	}
	return found
}

// running is false for a process that has ended, though nobody has waited for it.
func running(pid int) bool {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	at := bytes.LastIndexByte(content, ')')
	return err == nil && at > 0 && !strings.HasPrefix(string(content[at+1:]), " Z")
}

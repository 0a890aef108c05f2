// deferral copies the sources of go.etcd.io/raft and changes what keelson does differently on purpose (the header of
// src/raft/raft.ts), so that everything else can be compared exactly: every message, its order, all flow control. What a change
// does is written here in our own words; of etcd's code there are only the few that say where it goes. It fails when one of
// them is not there exactly once: a new version of raft is to be read again.
//
//	deferral SOURCE TARGET
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

type change struct {
	file, at, to string
}

var changes = []change{
	// Appends for everybody and heartbeats are made when the Ready is taken.
	{"raft.go", "type raft struct {\n", "type raft struct {\n\tappendsDue, heartbeatsDue bool\n"},
	{"raft.go", "func (r *raft) bcastAppend() {", "func (r *raft) bcastAppend() { r.appendsDue = true }\n\nfunc (r *raft) neverAppend() {"},
	{"raft.go", "func (r *raft) bcastHeartbeat() {",
		"func (r *raft) bcastHeartbeat() { r.heartbeatsDue = true }\n\nfunc (r *raft) sendHeartbeats() {"},
	{"raft.go", "\tr.abortLeaderTransfer()\n\n\tr.trk.ResetVotes()", "\tr.appendsDue, r.heartbeatsDue = false, false\n\tr.abortLeaderTransfer()\n\tr.trk.ResetVotes()"},
	{"rawnode.go", "func (rn *RawNode) Ready() Ready {\n", "func (rn *RawNode) Ready() Ready {\n\trn.raft.flush()\n"},
	{"rawnode.go", "func (rn *RawNode) HasReady() bool {\n", "func (rn *RawNode) HasReady() bool {\n\tif rn.raft.hasDue() {\n\t\treturn true\n\t}\n"},
	{"rawnode.go", "type RawNode struct {", `
func (r *raft) hasDue() bool {
	others := len(r.trk.Progress)
	if r.trk.Progress[r.id] != nil {
		others--
	}
	return (r.appendsDue || r.heartbeatsDue) && others > 0
}

// flush sends a follower an empty append only where it can commit more by it, and entries until none is left or it is paused.
func (r *raft) flush() {
	if r.appendsDue {
		r.appendsDue = false
		r.trk.Visit(func(id uint64, pr *tracker.Progress) {
			if id == r.id {
				return
			}
			r.maybeSendAppend(id, pr.CanBumpCommit(r.raftLog.committed))
			for r.maybeSendAppend(id, false) {
			}
		})
	}
	if r.heartbeatsDue {
		r.heartbeatsDue = false
		r.sendHeartbeats()
	}
}

type RawNode struct {`},

	// After an acknowledgement: everybody once, with the Ready, in place of this follower now.
	{"raft.go", "} else if r.id != m.GetFrom() && pr.CanBumpCommit(r.raftLog.committed) {",
		"}\n\t\t\t\tif r.id != m.GetFrom() && (pr.Next <= r.raftLog.lastIndex() || pr.CanBumpCommit(r.raftLog.committed)) {\n" +
			"\t\t\t\t\tr.bcastAppend()\n\t\t\t\t} else if false {"},
	{"raft.go", "for r.maybeSendAppend(m.GetFrom(), false /* sendIfEmpty */) {", "for false {"},
	{"raft.go", "r.maybeSendAppend(id, false /* sendIfEmpty */)", "r.bcastAppend()"},

	// A lone voter answers reads after its first commit in the term, then at once; and a commit by a change of the configuration
	// lets the reads that wait for one go, as any other does.
	{"raft.go", "\t\tif r.trk.IsSingleton() {", "\t\tif r.trk.IsSingleton() && r.committedEntryInCurrentTerm() {"},
	{"raft.go", "\tswitch r.readOnly.option {", "\toption := r.readOnly.option\n\tif r.trk.IsSingleton() {\n\t\toption = ReadOnlyLeaseBased\n\t}\n\tswitch option {"},
	{"raft.go", "\t// If the leadTransferee was removed or demoted,", "\tif r.committedEntryInCurrentTerm() {\n\t\treleasePendingReadIndexMessages(r)\n\t}\n\t// If the transferee was removed or demoted,"},

	// During a snapshot every refusal is stale.
	{"tracker/progress.go", "if pr.Next-1 != rejected {", "if pr.Next-1 != rejected || pr.State == StateSnapshot {"},
}

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "deferral:", err)
		os.Exit(1)
	}
}

func run(source, target string) error {
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	if err := os.CopyFS(target, os.DirFS(source)); err != nil {
		return err
	}
	for _, c := range changes {
		name := filepath.Join(target, c.file)
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if count := strings.Count(string(text), c.at); count != 1 {
			return fmt.Errorf("%s has %d times %q", c.file, count, c.at)
		}
		changed := strings.Replace(string(text), c.at, c.to, 1)
		// The sources of the module cache are read-only.
		if err := os.Remove(name); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(changed), 0o644); err != nil {
			return err
		}
	}
	return nil
}

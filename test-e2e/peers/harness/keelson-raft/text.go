package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// The texts that both sides write alike (src/testing/raft-text.ts):
//
//	conf     voters|outgoing|learners|learnersNext|autoLeave          1,2,3||4||0
//	data     - when empty; p7~4096, a token padded to a size; else #hex
//	entry    term/index/type/data
//	message  type from>to term= logTerm= index= commit= vote= reject= hint= context= entries= snapshot=   zero fields left out
//	         context is hex
//	answer   result TAB state TAB ready TAB messages TAB flow

var messageNames = []string{
	"hup", "beat", "prop", "app", "appResp", "vote", "voteResp", "snap", "heartbeat", "heartbeatResp", "unreachable",
	"snapStatus", "checkQuorum", "transferLeader", "timeoutNow", "readIndex", "readIndexResp", "preVote", "preVoteResp",
	"storageAppend", "storageAppendResp", "storageApply", "storageApplyResp", "forgetLeader",
}

// outcome is what a command gave.
type outcome struct {
	result   string
	soft     *raft.SoftState
	hard     *pb.HardState
	reads    []raft.ReadState
	entries  []*pb.Entry
	snapshot *pb.Snapshot
	applies  []*pb.Entry
	messages []*pb.Message
	after    []*pb.Message
	sync     bool
}

func (o *outcome) takeReady(rd raft.Ready) {
	if rd.SoftState != nil {
		o.soft = rd.SoftState
	}
	if !raft.IsEmptyHardState(rd.HardState) {
		o.hard = rd.HardState
	}
	o.reads = append(o.reads, rd.ReadStates...)
	o.entries = append(o.entries, rd.Entries...)
	o.applies = append(o.applies, rd.CommittedEntries...)
	// keelson's MustSync is also true for a snapshot alone.
	o.sync = o.sync || rd.MustSync
	if !raft.IsEmptySnap(rd.Snapshot) {
		o.snapshot, o.sync = rd.Snapshot, true
	}
}

func (o *outcome) text(n *node) string {
	var b strings.Builder
	b.WriteString(o.result)
	b.WriteByte('\t')
	n.writeState(&b)
	b.WriteByte('\t')
	o.writeReady(&b)
	b.WriteByte('\t')
	writeMessages(&b, o.messages)
	b.WriteString(" then ")
	writeMessages(&b, o.after)
	b.WriteByte('\t')
	n.writeFlow(&b)
	return b.String()
}

func (o *outcome) writeReady(b *strings.Builder) {
	if o.soft != nil {
		fmt.Fprintf(b, "soft=%d/%d ", o.soft.Lead, o.soft.RaftState)
	}
	if o.hard != nil {
		fmt.Fprintf(b, "hard=%d/%d/%d ", o.hard.GetTerm(), o.hard.GetVote(), o.hard.GetCommit())
	}
	if o.sync {
		b.WriteString("sync ")
	}
	for _, read := range o.reads {
		fmt.Fprintf(b, "read=%d/%s ", read.Index, dataText(read.RequestCtx))
	}
	if o.snapshot != nil {
		fmt.Fprintf(b, "snapshot=%s ", snapshotText(o.snapshot))
	}
	b.WriteString("entries=")
	writeEntries(b, o.entries)
	b.WriteString(" committed=")
	writeEntries(b, o.applies)
}

// writeState writes everything but what flow control decides.
func (n *node) writeState(b *strings.Builder) {
	p, s := n.private, n.raw.BasicStatus()
	granted, rejected, _ := p.tracker.TallyVotes()
	fmt.Fprintf(b, "role=%d term=%d vote=%d lead=%d commit=%d applied=%d first=%d stable=%d last=%d snapshot=%t",
		s.RaftState, s.GetTerm(), s.GetVote(), s.Lead, s.GetCommit(), s.Applied, p.firstIndex(n), *p.unstableOffset-1,
		p.lastIndex(n), p.hasPendingSnapshot())
	fmt.Fprintf(b, " elapsed=%d/%d/%d transferee=%d pendingConf=%d uncommitted=%d reads=%d/%d votes=%d/%d ready=%t conf=%s",
		*p.electionElapsed, *p.heartbeatElapsed, *p.randomizedElectionTimeout, *p.leadTransferee, *p.pendingConfIndex,
		*p.uncommittedSize, len(*p.pendingReads), len((*p.readOnly).unconfirmedReads), granted, rejected, n.raw.HasReady(),
		confText(p.tracker.ConfState()))
	if s.RaftState != raft.StateLeader {
		return
	}
	p.tracker.Visit(func(id uint64, progress *tracker.Progress) {
		fmt.Fprintf(b, " %d:", id)
		// A leader's own match is what is durable in keelson; etcd starts a term with its last index. Equal once all is durable.
		if id == n.id && len(*p.unstableEntries) > 0 {
			b.WriteString("unstable")
			return
		}
		fmt.Fprintf(b, "%d/%t/%t", progress.Match, progress.RecentActive, progress.IsLearner)
	})
}

func (n *node) writeFlow(b *strings.Builder) {
	p := n.private
	status := n.raw.BasicStatus()
	if status.RaftState != raft.StateLeader {
		return
	}
	p.tracker.Visit(func(id uint64, progress *tracker.Progress) {
		if id == n.id {
			return
		}
		fmt.Fprintf(b, "%d:%d:%d:%s:%d:%d%s:%s ", id, progress.State, progress.Next, flag(progress.IsPaused()), progress.PendingSnapshot,
			progress.Inflights.Count(), flag(progress.Inflights.Full()), flag(progress.CanBumpCommit(status.GetCommit())))
	})
}

func flag(value bool) string {
	if value {
		return "1"
	}
	return "0"
}

func confText(conf *pb.ConfState) string {
	ids := func(list []uint64) string {
		list = slices.Clone(list)
		slices.Sort(list)
		var words []string
		for _, id := range list {
			words = append(words, strconv.FormatUint(id, 10))
		}
		return strings.Join(words, ",")
	}
	return strings.Join([]string{ids(conf.GetVoters()), ids(conf.GetVotersOutgoing()), ids(conf.GetLearners()),
		ids(conf.GetLearnersNext()), flag(conf.GetAutoLeave())}, "|")
}

func parseConf(word string) *pb.ConfState {
	parts := strings.Split(word, "|")
	ids := func(list string) []uint64 {
		var ids []uint64
		for _, id := range strings.Split(list, ",") {
			if id != "" {
				ids = append(ids, number(id))
			}
		}
		return ids
	}
	return &pb.ConfState{Voters: ids(parts[0]), VotersOutgoing: ids(parts[1]), Learners: ids(parts[2]),
		LearnersNext: ids(parts[3]), AutoLeave: new(parts[4] == "1")}
}

func dataText(data []byte) string {
	if len(data) == 0 {
		return "-"
	}
	if data[0] == 'p' {
		return string(bytes.TrimRight(data, ".")) + "~" + strconv.Itoa(len(data))
	}
	return "#" + hex.EncodeToString(data)
}

var knownData = map[string][]byte{}

func parseData(word string) []byte {
	if word == "-" {
		return nil
	}
	if word[0] == '#' {
		return unhex(word[1:])
	}
	if data, ok := knownData[word]; ok {
		return data
	}
	token, size, _ := strings.Cut(word, "~")
	data := append([]byte(token), bytes.Repeat([]byte{'.'}, int(number(size))-len(token))...)
	knownData[word] = data
	return data
}

func writeEntries(b *strings.Builder, entries []*pb.Entry) {
	b.WriteByte('[')
	for i, entry := range entries {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, "%d/%d/%d/%s", entry.GetTerm(), entry.GetIndex(), entry.GetType(), dataText(entry.GetData()))
	}
	b.WriteByte(']')
}

func parseEntries(word string) []*pb.Entry {
	var entries []*pb.Entry
	for _, text := range strings.Split(strings.Trim(word, "[]"), ",") {
		parts := strings.SplitN(text, "/", 4)
		entries = append(entries, &pb.Entry{Term: new(number(parts[0])), Index: new(number(parts[1])),
			Type: pb.EntryType(number(parts[2])).Enum(), Data: parseData(parts[3])})
	}
	return entries
}

func snapshotText(s *pb.Snapshot) string {
	m := s.GetMetadata()
	return fmt.Sprintf("%d/%d/%s/%s", m.GetTerm(), m.GetIndex(), confText(m.GetConfState()), dataText(s.GetData()))
}

func parseSnapshot(word string) *pb.Snapshot {
	parts := strings.SplitN(word, "/", 4)
	return &pb.Snapshot{Data: parseData(parts[3]), Metadata: &pb.SnapshotMetadata{
		Term: new(number(parts[0])), Index: new(number(parts[1])), ConfState: parseConf(parts[2])}}
}

func writeMessages(b *strings.Builder, messages []*pb.Message) {
	for i, m := range messages {
		if i > 0 {
			b.WriteByte(';')
		}
		fmt.Fprintf(b, "%s %d>%d", messageNames[m.GetType()], m.GetFrom(), m.GetTo())
		for _, field := range []struct {
			name  string
			value uint64
		}{
			{"term", m.GetTerm()}, {"logTerm", m.GetLogTerm()}, {"index", m.GetIndex()}, {"commit", m.GetCommit()},
			{"vote", m.GetVote()}, {"reject", number(flag(m.GetReject()))}, {"hint", m.GetRejectHint()},
		} {
			if field.value != 0 {
				fmt.Fprintf(b, " %s=%d", field.name, field.value)
			}
		}
		if len(m.GetContext()) > 0 {
			fmt.Fprintf(b, " context=%s", hex.EncodeToString(m.GetContext()))
		}
		if len(m.GetEntries()) > 0 {
			b.WriteString(" entries=")
			writeEntries(b, m.GetEntries())
		}
		if m.GetSnapshot() != nil {
			fmt.Fprintf(b, " snapshot=%s", snapshotText(m.GetSnapshot()))
		}
	}
}

func parseMessage(words []string) *pb.Message {
	from, to, _ := strings.Cut(words[1], ">")
	m := &pb.Message{From: new(number(from)), To: new(number(to)), Type: pb.MessageType(slices.Index(messageNames, words[0])).Enum()}
	for _, word := range words[2:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "context":
			m.Context = unhex(value)
		case "entries":
			m.Entries = parseEntries(value)
		case "snapshot":
			m.Snapshot = parseSnapshot(value)
		case "reject":
			m.Reject = new(true)
		default:
			field := map[string]**uint64{"term": &m.Term, "logTerm": &m.LogTerm, "index": &m.Index, "commit": &m.Commit,
				"vote": &m.Vote, "hint": &m.RejectHint}[key]
			*field = new(number(value))
		}
	}
	return m
}

package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// storage is a MemoryStorage whose configuration at the next start is the state machine's, not the snapshot's.
type storage struct {
	*raft.MemoryStorage
	conf *pb.ConfState
}

func (s *storage) InitialState() (*pb.HardState, *pb.ConfState, error) {
	hardState, _, err := s.MemoryStorage.InitialState()
	return hardState, s.conf, err
}

type node struct {
	id      uint64
	storage *storage
	raw     *raft.RawNode
	private *private
	// What a driver with asynchronous writes holds: MsgStorageAppend and MsgStorageApply, oldest first.
	writes  []*pb.Message
	applies []*pb.Message
}

func newNode(id uint64, conf *pb.ConfState) *node {
	memory := raft.NewMemoryStorage()
	snapshot := &pb.Snapshot{Metadata: &pb.SnapshotMetadata{ConfState: conf, Index: new(uint64), Term: new(uint64)}}
	check(memory.ApplySnapshot(snapshot))
	return &node{id: id, storage: &storage{memory, conf}}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func (n *node) run(name string, args []string, out *outcome) {
	switch name {
	case "start":
		n.start(args)
	case "crash":
		for _, m := range n.writes[:number(args[0])] {
			n.write(m)
		}
		n.raw, n.writes, n.applies = nil, nil, nil
	case "bootstrap":
		n.bootstrap(args)
	case "ready":
		n.ready(out)
	case "persist":
		n.persist(int(number(args[0])), out)
	case "apply":
		n.apply(args[0], out)
	case "settle":
		n.settle(args[0], out)
	case "compact":
		_, err := n.storage.CreateSnapshot(number(args[0]), parseConf(args[1]), parseData(args[2]))
		check(err)
		if first := number(args[3]); first > 0 {
			check(n.storage.Compact(first))
		}
	case "flow":
		n.flow(args)
	default:
		n.input(name, args, out)
	}
}

// start's keys: el hb size committed uncommitted inflight bytes cq pv lease noforward async, numbers; inf is no bound.
func (n *node) start(args []string) {
	n.storage.conf = parseConf(args[1])
	config := &raft.Config{
		ID: n.id, Storage: n.storage, Applied: number(args[0]), Logger: silent{},
		// keelson always does so; etcd's server leaves it off and stops the removed member itself.
		StepDownOnRemoval: true,
	}
	for _, arg := range args[2:] {
		key, word, _ := strings.Cut(arg, "=")
		value := uint64(math.MaxUint64)
		if word != "inf" {
			value = number(word)
		}
		switch key {
		case "el":
			config.ElectionTick = int(value)
		case "hb":
			config.HeartbeatTick = int(value)
		case "size":
			config.MaxSizePerMsg = value
		case "committed":
			config.MaxCommittedSizePerReady = value
		case "uncommitted":
			config.MaxUncommittedEntriesSize = value
		case "inflight":
			config.MaxInflightMsgs = int(value)
		case "bytes":
			config.MaxInflightBytes = value
		case "cq":
			config.CheckQuorum = value == 1
		case "pv":
			config.PreVote = value == 1
		case "lease":
			if value == 1 {
				config.ReadOnlyOption = raft.ReadOnlyLeaseBased
			}
		case "noforward":
			config.DisableProposalForwarding = value == 1
		case "async":
			config.AsyncStorageWrites = value == 1
		default:
			panic("unknown key " + key)
		}
	}
	raw, err := raft.NewRawNode(config)
	check(err)
	n.raw, n.private = raw, privateOf(raw)
}

func (n *node) bootstrap(args []string) {
	var peers []raft.Peer
	for _, arg := range args {
		id, context, _ := strings.Cut(arg, ":")
		peers = append(peers, raft.Peer{ID: number(id), Context: unhex(context)})
	}
	check(n.raw.Bootstrap(peers))
}

func (n *node) input(name string, args []string, out *outcome) {
	switch name {
	case "tick":
		n.raw.Tick()
	case "campaign":
		check(n.raw.Campaign())
	case "propose":
		n.propose(args, out)
	case "conf-change":
		out.dropped(n, func() error { return n.raw.ProposeConfChange(parseConfChange(args[0], unhex(args[1]))) })
	case "step":
		m := parseMessage(args)
		out.dropped(n, func() error { return n.raw.Step(m) })
		// How a peer's message is refused is not the sender's business.
		out.result = "ok"
	case "read":
		n.raw.ReadIndex(parseData(args[0]))
	case "transfer":
		n.raw.TransferLeader(number(args[0]))
	case "forget-leader":
		check(n.raw.ForgetLeader())
	case "unreachable":
		n.raw.ReportUnreachable(number(args[0]))
	case "snapshot-status":
		status := raft.SnapshotFinish
		if args[1] == "failed" {
			status = raft.SnapshotFailure
		}
		n.raw.ReportSnapshot(number(args[0]), status)
	default:
		panic("unknown command " + name)
	}
}

func (n *node) propose(args []string, out *outcome) {
	if len(args) == 1 {
		out.dropped(n, func() error { return n.raw.Propose(parseData(args[0])) })
		return
	}
	m := &pb.Message{Type: pb.MsgProp.Enum(), From: new(n.id)}
	for _, arg := range args {
		m.Entries = append(m.Entries, &pb.Entry{Data: parseData(arg)})
	}
	out.dropped(n, func() error { return n.raw.Step(m) })
}

// dropped runs a proposal. One that is dropped leaves the index of the pending configuration change as it was: etcd moves
// it although there is no entry, which ends with the next entry; keelson, which appends no empty entry for a refused change
// of its own, could wait for ever.
func (o *outcome) dropped(n *node, propose func() error) {
	before := *n.private.pendingConfIndex
	err := propose()
	if errors.Is(err, raft.ErrProposalDropped) {
		*n.private.pendingConfIndex = before
		o.result = "dropped"
	} else if !errors.Is(err, raft.ErrStepPeerNotFound) && !errors.Is(err, raft.ErrStepLocalMsg) {
		check(err)
	}
}

// --- The loop with asynchronous storage writes ---

func (n *node) ready(out *outcome) {
	rd := n.raw.Ready()
	out.takeReady(rd)
	for _, m := range rd.Messages {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			n.writes = append(n.writes, m)
			for _, response := range m.GetResponses() {
				if response.GetTo() != n.id {
					out.after = append(out.after, response)
				}
			}
			out.result = "write"
		case raft.LocalApplyThread:
			n.applies = append(n.applies, m)
		default:
			out.messages = append(out.messages, m)
		}
	}
}

func (n *node) write(m *pb.Message) {
	if m.Snapshot != nil {
		check(n.storage.ApplySnapshot(m.Snapshot))
	}
	check(n.storage.Append(m.Entries))
	if m.GetTerm() != 0 || m.GetVote() != 0 || m.GetCommit() != 0 {
		check(n.storage.SetHardState(&pb.HardState{Term: new(m.GetTerm()), Vote: new(m.GetVote()), Commit: new(m.GetCommit())}))
	}
}

func (n *node) persist(count int, out *outcome) {
	done := n.writes[:count]
	n.writes = n.writes[count:]
	// All are on the disk before the first is acknowledged, as when one sync covers several.
	for _, m := range done {
		n.write(m)
	}
	// Of a leader's acknowledgements to itself only the last, which is all that keelson has: the reads that wait for the first
	// commit of the term get the commit index as of then.
	var own []*pb.Message
	for _, m := range done {
		for _, response := range m.GetResponses() {
			if response.GetTo() != n.id {
				continue
			}
			if response.GetType() == pb.MsgAppResp {
				own = slices.DeleteFunc(own, func(other *pb.Message) bool { return other.GetType() == pb.MsgAppResp })
			}
			own = append(own, response)
		}
	}
	for _, response := range own {
		// A member that is not part of the configuration any more has no word in it.
		if err := n.raw.Step(response); !errors.Is(err, raft.ErrStepPeerNotFound) {
			check(err)
		}
	}
}

func (n *node) apply(void string, out *outcome) {
	m := n.applies[0]
	n.applies = n.applies[1:]
	n.applyEntries(m.Entries, &void)
	for _, response := range m.GetResponses() {
		check(n.raw.Step(response))
	}
}

// applyEntries takes the configuration changes over. `void` has a character for each: 1 for one that the application refuses,
// which etcd's does by setting its node ids to 0.
func (n *node) applyEntries(entries []*pb.Entry, void *string) {
	for _, entry := range entries {
		if entry.GetType() == pb.EntryNormal {
			continue
		}
		form := "v1"
		if entry.GetType() == pb.EntryConfChangeV2 {
			form = "v2"
		}
		change := proto.Clone(parseConfChange(form, entry.GetData()).AsV2()).(*pb.ConfChangeV2)
		if (*void)[0] == '1' {
			for _, one := range change.Changes {
				one.NodeId = new(uint64)
			}
		}
		*void = (*void)[1:]
		// A received snapshot's configuration is in force and includes this change: etcd's would take it over the newer one.
		if !n.private.hasPendingSnapshot() {
			n.raw.ApplyConfChange(change)
			n.private.answerConfirmedReads(n)
		}
	}
}

// --- The loop of etcd's server ---

func (n *node) settle(void string, out *outcome) {
	for n.raw.HasReady() {
		rd := n.raw.Ready()
		out.takeReady(rd)
		out.messages = append(out.messages, rd.Messages...)
		if !raft.IsEmptySnap(rd.Snapshot) {
			check(n.storage.ApplySnapshot(rd.Snapshot))
		}
		check(n.storage.Append(rd.Entries))
		if !raft.IsEmptyHardState(rd.HardState) {
			check(n.storage.SetHardState(rd.HardState))
		}
		n.applyEntries(rd.CommittedEntries, &void)
		n.raw.Advance(rd)
		n.private.normalise(n)
	}
}

func (n *node) flow(args []string) {
	for _, arg := range args {
		if arg == "" {
			continue
		}
		words := strings.Split(arg, ":")
		progress := n.private.tracker.Progress[number(words[0])]
		state := tracker.StateType(number(words[1]))
		if progress.State != state {
			progress.ResetState(state)
		}
		progress.Next = number(words[2])
		progress.MsgAppFlowPaused = words[3] == "1" && state != tracker.StateSnapshot
		progress.PendingSnapshot = number(words[4])
		progress.Inflights = tracker.NewInflights(n.private.tracker.MaxInflight, n.private.tracker.MaxInflightBytes)
	}
}

func parseConfChange(form string, data []byte) pb.ConfChangeI {
	if form == "v1" {
		change := &pb.ConfChange{}
		check(proto.Unmarshal(data, change))
		return change
	}
	change := &pb.ConfChangeV2{}
	check(proto.Unmarshal(data, change))
	return change
}

func unhex(word string) []byte {
	data, err := hex.DecodeString(word)
	check(err)
	return data
}

// silent panics as raft's loggers do, and says nothing else.
type silent struct{}

func (silent) Debug(...any)                   {}
func (silent) Debugf(string, ...any)          {}
func (silent) Error(...any)                   {}
func (silent) Errorf(string, ...any)          {}
func (silent) Info(...any)                    {}
func (silent) Infof(string, ...any)           {}
func (silent) Warning(...any)                 {}
func (silent) Warningf(string, ...any)        {}
func (silent) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) }
func (silent) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (silent) Panic(v ...any)                 { panic(fmt.Sprint(v...)) }
func (silent) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }

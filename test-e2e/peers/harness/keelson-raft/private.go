package main

import (
	"reflect"
	"unsafe"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/quorum"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// private points into the fields of a RawNode that it does not show: to compare the whole state, and for the few things that
// keelson does at another moment than etcd (normalise).
type private struct {
	randomizedElectionTimeout *int
	electionElapsed           *int
	heartbeatElapsed          *int
	pendingConfIndex          *uint64
	uncommittedSize           *uint64
	leadTransferee            *uint64
	tracker                   *tracker.ProgressTracker
	readOnly                  **readOnly
	pendingReads              *[]*pb.Message
	readStates                *[]raft.ReadState
	messages                  *[]*pb.Message
	messagesAfterAppend       *[]*pb.Message

	unstableSnapshot **pb.Snapshot
	unstableEntries  *[]*pb.Entry
	unstableOffset   *uint64
}

// The layout of raft's own types of these names; privateOf checks it.
type readOnly struct {
	option           raft.ReadOnlyOption
	acks             map[uint64]uint64
	unconfirmedReads []*readIndexRequest
	confirmedReads   uint64
}

type readIndexRequest struct {
	req   *pb.Message
	index uint64
}

//go:linkname maybeAdvance go.etcd.io/raft/v3.(*readOnly).maybeAdvance
func maybeAdvance(ro *readOnly, c quorum.JointConfig) []*readIndexRequest

func privateOf(raw *raft.RawNode) *private {
	r := reflect.ValueOf(raw).Elem().FieldByName("raft").Elem()
	log := r.FieldByName("raftLog").Elem()
	unstable := log.FieldByName("unstable")
	sameLayout(r.FieldByName("readOnly").Type().Elem(), reflect.TypeFor[readOnly]())
	sameLayout(r.FieldByName("readOnly").Type().Elem().Field(2).Type.Elem().Elem(), reflect.TypeFor[readIndexRequest]())
	return &private{
		randomizedElectionTimeout: pointer[int](r, "randomizedElectionTimeout"),
		electionElapsed:           pointer[int](r, "electionElapsed"),
		heartbeatElapsed:          pointer[int](r, "heartbeatElapsed"),
		pendingConfIndex:          pointer[uint64](r, "pendingConfIndex"),
		uncommittedSize:           pointer[uint64](r, "uncommittedSize"),
		leadTransferee:            pointer[uint64](r, "leadTransferee"),
		tracker:                   pointer[tracker.ProgressTracker](r, "trk"),
		readOnly:                  pointer[*readOnly](r, "readOnly"),
		pendingReads:              pointer[[]*pb.Message](r, "pendingReadIndexMessages"),
		readStates:                pointer[[]raft.ReadState](r, "readStates"),
		messages:                  pointer[[]*pb.Message](r, "msgs"),
		messagesAfterAppend:       pointer[[]*pb.Message](r, "msgsAfterAppend"),
		unstableSnapshot:          pointer[*pb.Snapshot](unstable, "snapshot"),
		unstableEntries:           pointer[[]*pb.Entry](unstable, "entries"),
		unstableOffset:            pointer[uint64](unstable, "offset"),
	}
}

func pointer[T any](of reflect.Value, name string) *T {
	field := of.FieldByName(name)
	want := reflect.TypeFor[T]()
	if !field.IsValid() || field.Kind() != want.Kind() || field.Type().Size() != want.Size() {
		panic("raft has no such field any more: " + name)
	}
	return (*T)(unsafe.Pointer(field.UnsafeAddr()))
}

func sameLayout(theirs, ours reflect.Type) {
	if theirs.NumField() != ours.NumField() {
		panic("another layout: " + theirs.String())
	}
	for i := range ours.NumField() {
		a, b := theirs.Field(i), ours.Field(i)
		if a.Name != b.Name || a.Offset != b.Offset || a.Type.Kind() != b.Type.Kind() {
			panic("another layout: " + theirs.String() + "." + a.Name)
		}
	}
}

func (p *private) hasPendingSnapshot() bool { return *p.unstableSnapshot != nil }

// normalise does now what keelson does at once and etcd later, or not at all:
//   - One's own pre-vote, which promises nothing, counts at once and not after the next write.
//   - Reads that a leader held until its first commit are forgotten when it steps down. etcd keeps them and answers them should
//     it lead again.
func (p *private) normalise(n *node) {
	status := n.raw.BasicStatus()
	kept := (*p.messagesAfterAppend)[:0:0]
	var own []*pb.Message
	for _, m := range *p.messagesAfterAppend {
		if m.GetTo() == n.id && m.GetType() == pb.MsgPreVoteResp {
			own = append(own, m)
		} else {
			kept = append(kept, m)
		}
	}
	if len(own) > 0 {
		*p.messagesAfterAppend = kept
		for _, m := range own {
			check(n.raw.Step(m))
		}
	}
	if status.RaftState != raft.StateLeader {
		*p.pendingReads = nil
	}
}

// answerConfirmedReads answers the reads that a change of the configuration has confirmed. etcd does so only at the next
// heartbeat's answer, which a lone voter never gets.
func (p *private) answerConfirmedReads(n *node) {
	status := n.raw.BasicStatus()
	if status.RaftState != raft.StateLeader {
		return
	}
	for _, read := range maybeAdvance(*p.readOnly, p.tracker.Voters) {
		if from := read.req.GetFrom(); from == raft.None || from == n.id {
			*p.readStates = append(*p.readStates, raft.ReadState{Index: read.index, RequestCtx: read.req.GetEntries()[0].GetData()})
		} else {
			*p.messages = append(*p.messages, &pb.Message{
				Type: pb.MsgReadIndexResp.Enum(), To: new(from), From: new(n.id), Term: new(status.GetTerm()),
				Index: new(read.index), Entries: read.req.GetEntries(),
			})
		}
	}
}

func (p *private) lastIndex(n *node) uint64 {
	if count := len(*p.unstableEntries); count > 0 {
		return *p.unstableOffset + uint64(count) - 1
	}
	if p.hasPendingSnapshot() {
		return (*p.unstableSnapshot).GetMetadata().GetIndex()
	}
	last, err := n.storage.LastIndex()
	check(err)
	return last
}

func (p *private) firstIndex(n *node) uint64 {
	if p.hasPendingSnapshot() {
		return (*p.unstableSnapshot).GetMetadata().GetIndex() + 1
	}
	first, err := n.storage.FirstIndex()
	check(err)
	return first
}

package main

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Goal: the differ must see differences. Between two etcds it finds none, which a blind one would not either.
// Method: feed pairs of answers that differ in one thing, and pairs that differ only in what the allow-list forgives.

func kv(key string, mod, version int64, value string) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte(key), ModRevision: mod, CreateRevision: 1, Version: version, Value: []byte(value)}
}

func header(cluster uint64, rev int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: cluster, MemberId: cluster, RaftTerm: cluster, Revision: rev}
}

func many(n int, change func(i int, kv *mvccpb.KeyValue)) (kvs []*mvccpb.KeyValue) {
	for i := range n {
		one := kv(string(rune('a'+i)), 7, 1, "v")
		change(i, one)
		kvs = append(kvs, one)
	}
	return kvs
}

func TestCompareAnswers(t *testing.T) {
	byVersion := &pb.RangeRequest{Key: []byte("a"), SortTarget: pb.RangeRequest_VERSION}
	limited := &pb.RangeRequest{Key: []byte("a"), SortTarget: pb.RangeRequest_VERSION, Limit: 2}
	same := func(int, *mvccpb.KeyValue) {}
	reversed := many(20, same)
	for i, j := 0, 19; i < j; i, j = i+1, j-1 {
		reversed[i], reversed[j] = reversed[j], reversed[i]
	}
	fail := func(c codes.Code, m string) answer { return answer{err: status.Error(c, m)} }
	ok := func(m proto.Message) answer { return answer{msg: m} }
	cases := []struct {
		name string
		req  proto.Message
		a, b answer
		same bool
	}{
		{"ids and term may differ", &pb.PutRequest{}, ok(&pb.PutResponse{Header: header(1, 5)}), ok(&pb.PutResponse{Header: header(9, 5)}), true},
		{"an id that is missing may not", &pb.PutRequest{}, ok(&pb.PutResponse{Header: header(1, 5)}), ok(&pb.PutResponse{Header: header(0, 5)}), false},
		{"revision", &pb.PutRequest{}, ok(&pb.PutResponse{Header: header(1, 5)}), ok(&pb.PutResponse{Header: header(1, 6)}), false},
		{"no header", &pb.PutRequest{}, ok(&pb.PutResponse{Header: header(1, 5)}), ok(&pb.PutResponse{}), false},
		{"prev_kv", &pb.PutRequest{}, ok(&pb.PutResponse{PrevKv: kv("a", 1, 1, "x")}), ok(&pb.PutResponse{}), false},
		{"an error against none", &pb.PutRequest{}, fail(3, "x"), ok(&pb.PutResponse{}), false},
		{"error message", &pb.PutRequest{}, fail(3, "x"), fail(3, "y"), false},
		{"error code", &pb.PutRequest{}, fail(3, "x"), fail(5, "x"), false},
		{"the quirk's code", &pb.PutRequest{}, fail(2, "etcdserver: too many requests"), fail(8, "etcdserver: too many requests"), true},
		{"the quirk's message with another code", &pb.PutRequest{}, fail(2, "etcdserver: too many requests"), fail(14, "etcdserver: too many requests"), false},
		{"order of 20 ties", byVersion, ok(&pb.RangeResponse{Kvs: many(20, same), Count: 20}), ok(&pb.RangeResponse{Kvs: reversed, Count: 20}), true},
		{"order of 2 ties", byVersion, ok(&pb.RangeResponse{Kvs: many(20, same)[:2], Count: 2}), ok(&pb.RangeResponse{Kvs: reversed[18:], Count: 2}), false},
		{"order of keys", &pb.RangeRequest{}, ok(&pb.RangeResponse{Kvs: many(20, same), Count: 20}), ok(&pb.RangeResponse{Kvs: reversed, Count: 20}), false},
		{"a value among ties", byVersion, ok(&pb.RangeResponse{Kvs: many(20, same), Count: 20}),
			ok(&pb.RangeResponse{Kvs: many(20, func(i int, kv *mvccpb.KeyValue) { kv.Value[0] += byte(i / 19) }), Count: 20}), false},
		{"which ties the limit keeps", limited, ok(&pb.RangeResponse{Kvs: many(20, same)[:2], Count: 20, More: true}), ok(&pb.RangeResponse{Kvs: reversed[:2], Count: 20, More: true}), true},
		{"a sort value at the limit", limited, ok(&pb.RangeResponse{Kvs: many(20, same)[:2], Count: 20, More: true}),
			ok(&pb.RangeResponse{Kvs: many(2, func(_ int, kv *mvccpb.KeyValue) { kv.Version = 2 }), Count: 20, More: true}), false},
		{"remaining time of a lease", &pb.LeaseTimeToLiveRequest{}, ok(&pb.LeaseTimeToLiveResponse{TTL: 10}), ok(&pb.LeaseTimeToLiveResponse{TTL: 8}), true},
		{"too much of it", &pb.LeaseTimeToLiveRequest{}, ok(&pb.LeaseTimeToLiveResponse{TTL: 10}), ok(&pb.LeaseTimeToLiveResponse{TTL: 7}), false},
		{"no lease against an expired one", &pb.LeaseTimeToLiveRequest{}, ok(&pb.LeaseTimeToLiveResponse{TTL: -1}), ok(&pb.LeaseTimeToLiveResponse{TTL: 0}), false},
		{"a hash", &pb.HashKVRequest{}, ok(&pb.HashKVResponse{Hash: 1}), ok(&pb.HashKVResponse{Hash: 2}), false},
		{"shape of a stream", &pb.RangeRequest{}, ok(&pb.RangeResponse{}), answer{msg: &pb.RangeResponse{}, extra: " header on the first chunk"}, false},
		{"txn: nested count", &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: byVersion}}}},
			ok(&pb.TxnResponse{Succeeded: true, Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Count: 1}}}}}),
			ok(&pb.TxnResponse{Succeeded: true, Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Count: 2}}}}}), false},
	}
	for _, c := range cases {
		d := &differ{}
		if err := d.compareAnswers(&request{kind: "test", msg: c.req}, c.a, c.b); (err == nil) != c.same {
			t.Errorf("%s: same=%v, but: %v", c.name, c.same, err)
		}
	}
}

func TestCompareWatcher(t *testing.T) {
	put := func(mod int64) *mvccpb.Event { return &mvccpb.Event{Kv: kv("a", mod, mod, "v")} }
	withPrev := put(2)
	withPrev.PrevKv = kv("a", 1, 1, "v")
	gone := put(2)
	gone.Type = mvccpb.Event_DELETE
	two := []*mvccpb.Event{put(1), put(2)}
	for name, b := range map[string][]*mvccpb.Event{
		"lost": {put(1)}, "doubled": {put(1), put(2), put(2)}, "swapped": {put(2), put(1)}, "type": {put(1), gone}, "prev_kv": {put(1), withPrev},
	} {
		d := &differ{}
		w := &watcher{create: &pb.WatchCreateRequest{}, expected: 2}
		if d.compareWatcher(0, w, &received{events: two}, &received{events: b}) == nil {
			t.Errorf("%s: not seen", name)
		}
	}
	d := &differ{}
	w := &watcher{create: &pb.WatchCreateRequest{}, expected: 2}
	if err := d.compareWatcher(0, w, &received{events: two}, &received{events: []*mvccpb.Event{put(1), put(2)}}); err != nil {
		t.Error(err)
	}
	w = &watcher{create: &pb.WatchCreateRequest{}, compacted: true}
	if d.compareWatcher(0, w, &received{compactions: []*pb.WatchResponse{{CompactRevision: 3}}}, &received{}) == nil {
		t.Error("a missing compaction cancel was not seen")
	}
	if d.compareWatcher(0, w, &received{compactions: []*pb.WatchResponse{{CompactRevision: 3}}}, &received{compactions: []*pb.WatchResponse{{CompactRevision: 4}}}) == nil {
		t.Error("another compact_revision was not seen")
	}
}

func TestOverlongVarint(t *testing.T) {
	for _, v := range []uint64{0, 1, 127, 300, 1<<63 - 1} {
		b := overlong(nil, v)
		got, n := protowire.ConsumeVarint(b)
		if got != v || n != 10 {
			t.Errorf("%d was read back as %d (%d bytes)", v, got, n)
		}
	}
}

// Goal: a seed replays, so nothing in the generator may hang on time or map order.
func TestGeneratorIsDeterministic(t *testing.T) {
	generate := func() (out []byte) {
		d := offline(42)
		for range 500 {
			for _, m := range []proto.Message{d.putRequest(), d.rangeRequest(), d.txn(0, map[string]bool{}, false), d.deleteRequest()} {
				out, _ = proto.MarshalOptions{Deterministic: true}.MarshalAppend(out, m)
			}
		}
		return out
	}
	if string(generate()) != string(generate()) {
		t.Error("two runs of one seed differ")
	}
}

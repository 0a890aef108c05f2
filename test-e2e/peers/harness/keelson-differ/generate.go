package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

func (d *differ) fullMenu() []menuItem {
	return []menuItem{
		{"put", 290, d.stepPut},
		{"put-raw", 20, d.stepPutRaw},
		{"range", 240, d.stepRange},
		{"rangestream", 50, d.stepRangeStream},
		{"delete", 60, d.stepDelete},
		{"txn", 180, d.stepTxn},
		{"compact", 10, d.stepCompact},
		{"lease-grant", 25, d.stepLeaseGrant},
		{"lease-short", 4, d.stepLeaseShort},
		{"lease-revoke", 12, d.stepLeaseRevoke},
		{"lease-ttl", 20, d.stepLeaseTimeToLive},
		{"lease-list", 8, d.stepLeaseList},
		{"lease-keepalive", 10, d.stepLeaseKeepAlive},
		{"hashkv", 20, d.stepHashKV},
		{"watch", 40, d.stepWatch},
		{"cluster", 4, d.stepCluster},
		{"malformed", 4, d.stepMalformed},
		{"large", 1, d.stepLarge},
	}
}

// --- small pieces

func (d *differ) chance(percent float64) bool { return d.rng.Float64()*100 < percent }

// makeKeys: few enough to collide, with the bytes that break naive orders and encodings, and lengths around and far
// beyond what a B+tree page takes (LMDB: 4,026 bytes at pages of 8 KiB, less with escaping).
func (d *differ) makeKeys() {
	add := func(k string) { d.keys = append(d.keys, []byte(k)) }
	for i := range 24 {
		add(fmt.Sprintf("a/%02d", i))
		add(fmt.Sprintf("/registry/pods/ns%d/p%d", i%3, i))
	}
	for _, k := range []string{"\x00", "\x00\x00", "\x00\x00\x01", "\x00\xff", "\x00\xff\x00", "\x01", "\xff", "\xff\xff", "\xff\x00", "\xfe",
		"a", "a\x00", "a\x00\x00", "a\x00b", "a\x00\xff", "a\xff", "a\xff\xff", "b", "b\x7f\x80", "a/", "a0", "é", "\xc3\x28"} {
		add(k)
	}
	for i := range 6 {
		b := make([]byte, 1+d.rng.IntN(40))
		for j := range b {
			b[j] = byte(d.rng.IntN(256))
		}
		b[0] |= byte(i)
		d.keys = append(d.keys, b)
	}
	long := bytes.Repeat([]byte("k"), 8192)
	zeros := make([]byte, 3000)
	for _, n := range []int{255, 511, 512, 1978, 1979, 3899, 3900, 3901, 4026, 4027, 8191, 8192} {
		d.keys = append(d.keys, long[:n])
	}
	for i := range 4 {
		// The same first 4,000 bytes: order among them rests on what a truncated index key loses.
		d.keys = append(d.keys, append(slices.Clone(long[:4000]), fmt.Sprintf("/%d", i)...))
	}
	d.keys = append(d.keys, append([]byte("z"), zeros...), append([]byte("z"), append(slices.Clone(zeros), 1)...))
}

func (d *differ) key() []byte {
	if d.chance(0.5) {
		return nil
	}
	if d.chance(6) {
		return d.keys[d.rng.IntN(len(d.keys))]
	}
	// Mostly the plain ones, so that they are overwritten, deleted and compared often.
	return d.keys[d.rng.IntN(min(len(d.keys), 77))]
}

func prefixEnd(k []byte) []byte {
	end := slices.Clone(k)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

// interval gives key and range_end: mostly sensible, sometimes empty, reversed or from-key.
func (d *differ) interval() (key, end []byte) {
	key = d.key()
	switch p := d.rng.IntN(100); {
	case p < 40:
		return key, nil
	case p < 60:
		if len(key) > 2 && d.chance(70) {
			key = key[:1+d.rng.IntN(2)]
		}
		return key, prefixEnd(key)
	case p < 68:
		return key, []byte{0}
	case p < 76:
		return key, append(slices.Clone(key), 0)
	case p < 92:
		end = d.key()
		if d.chance(80) && bytes.Compare(key, end) > 0 {
			key, end = end, key
		}
		return key, end
	case p < 95:
		return []byte{0}, []byte{0}
	case p < 97:
		return key, key
	default:
		return []byte("/registry/"), []byte("/registry0")
	}
}

func (d *differ) value() []byte {
	n := 0
	switch p := d.rng.IntN(100); {
	case p < 6:
		return nil
	case p < 30:
		// A few values only, so that compares and sorts by value meet equals.
		return []byte{byte('0' + d.rng.IntN(4))}
	case p < 96:
		n = d.rng.IntN(300)
	default:
		n = d.rng.IntN(12000)
	}
	b := make([]byte, n)
	for i := 0; i < n; i += 7 {
		b[i] = byte(d.rng.IntN(256))
	}
	return b
}

func (d *differ) leaseID() int64 {
	if len(d.leases) > 0 && d.chance(90) {
		return d.leases[d.rng.IntN(len(d.leases))]
	}
	return []int64{1, 7, 4242, -9, math.MaxInt64, math.MinInt64}[d.rng.IntN(6)]
}

// revision near something interesting: the compaction, the present, beyond both.
func (d *differ) revision() int64 {
	switch p := d.rng.IntN(100); {
	case p < 45:
		if d.rev > d.compactRev {
			return max(d.compactRev, 1) + d.rng.Int64N(d.rev-max(d.compactRev, 1)+1)
		}
		return d.rev
	case p < 60:
		return d.rev
	case p < 70:
		return max(d.compactRev, 0)
	case p < 76:
		return max(d.compactRev-1, 0)
	case p < 82:
		return max(d.compactRev+1, 1)
	case p < 90:
		return d.rev + 1 + d.rng.Int64N(5)
	case p < 93:
		return -1 - d.rng.Int64N(3)
	case p < 95:
		return math.MaxInt64
	case p < 96:
		return math.MinInt64
	default:
		return 1 + d.rng.Int64N(max(d.rev, 1))
	}
}

// --- requests

func (d *differ) putRequest() *pb.PutRequest {
	r := &pb.PutRequest{Key: d.key(), Value: d.value(), PrevKv: d.chance(25)}
	if d.chance(15) {
		r.Lease = d.leaseID()
	}
	if d.chance(6) {
		r.IgnoreValue = true
		if d.chance(85) {
			r.Value = nil
		}
	}
	if d.chance(6) {
		r.IgnoreLease = true
		if d.chance(85) {
			r.Lease = 0
		}
	}
	return r
}

func (d *differ) stepPut() error {
	r := d.putRequest()
	return d.both(&request{kind: "put", msg: r, send: func(ctx context.Context, s *side) (proto.Message, error) { return s.kv.Put(ctx, r) }})
}

// stepPutRaw sends a Put as no encoder writes it but every parser must read it: fields in any order, given twice,
// zero values spelled out, overlong varints, fields of the future. A server that splices request bytes must get it right.
func (d *differ) stepPutRaw() error {
	r := d.putRequest()
	type field struct{ b []byte }
	tag := func(n protowire.Number, t protowire.Type) []byte {
		if d.chance(10) {
			return overlong(nil, protowire.EncodeTag(n, t))
		}
		return protowire.AppendTag(nil, n, t)
	}
	varint := func(n protowire.Number, v uint64) field {
		b := tag(n, protowire.VarintType)
		if d.chance(25) && v < 1<<63 {
			return field{overlong(b, v)}
		}
		return field{protowire.AppendVarint(b, v)}
	}
	flag := func(n protowire.Number, v bool) field { return varint(n, protowire.EncodeBool(v)) }
	text := func(n protowire.Number, v []byte) field {
		return field{protowire.AppendBytes(tag(n, protowire.BytesType), v)}
	}
	fields := []field{text(1, r.Key), text(2, r.Value), varint(3, uint64(r.Lease)), flag(4, r.PrevKv), flag(5, r.IgnoreValue), flag(6, r.IgnoreLease)}
	d.rng.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	if d.chance(30) {
		// Given twice, the last counts.
		fields = append([]field{text(1, d.key()), text(2, d.value()), flag(4, !r.PrevKv)}, fields...)
	}
	if d.chance(40) {
		fields = append(fields, varint(15, 99), text(200, []byte("future")), field{protowire.AppendFixed64(tag(16, protowire.Fixed64Type), 5)})
	}
	var raw []byte
	for _, f := range fields {
		raw = append(raw, f.b...)
	}
	return d.both(&request{kind: "put-raw", msg: r, note: fmt.Sprintf("raw=%x", raw), send: func(ctx context.Context, s *side) (proto.Message, error) {
		return invokeRaw(ctx, s, "/etcdserverpb.KV/Put", raw, &pb.PutResponse{})
	}})
}

func (d *differ) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{Serializable: d.chance(20)}
	r.Key, r.RangeEnd = d.interval()
	if d.chance(40) {
		r.Limit = []int64{1, 2, 3, 5, 10, 11, 50, 500, -1, math.MaxInt64, math.MinInt64}[d.rng.IntN(11)]
	}
	if d.chance(30) {
		r.Revision = d.revision()
	}
	if d.chance(25) {
		r.SortOrder = pb.RangeRequest_SortOrder(d.rng.IntN(3))
		r.SortTarget = pb.RangeRequest_SortTarget(d.rng.IntN(5))
	}
	if d.chance(1) {
		r.SortOrder = 3
	}
	if d.chance(1) {
		r.SortTarget = -1
	}
	if d.chance(12) {
		bounds := []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision}
		*bounds[d.rng.IntN(4)] = d.revision()
		if d.chance(30) {
			*bounds[d.rng.IntN(4)] = d.revision()
		}
	}
	r.KeysOnly = d.chance(15)
	r.CountOnly = d.chance(12)
	return r
}

func rangeCall(r *pb.RangeRequest) func(context.Context, *side) (proto.Message, error) {
	return func(ctx context.Context, s *side) (proto.Message, error) { return s.kv.Range(ctx, r) }
}

func (d *differ) stepRange() error {
	r := d.rangeRequest()
	return d.both(&request{kind: "range", msg: r, send: rangeCall(r)})
}

func (d *differ) stepRangeStream() error {
	r := d.rangeRequest()
	if d.chance(80) {
		r.SortOrder, r.SortTarget = 0, 0
		r.MinModRevision, r.MaxModRevision, r.MinCreateRevision, r.MaxCreateRevision = 0, 0, 0, 0
	}
	if d.chance(40) {
		r.Key, r.RangeEnd = []byte{0}, []byte{0}
	}
	if r.Limit < 0 {
		// etcd 3.7 hands a negative limit through as the size of a chunk; its answer is not worth copying.
		r.Limit = 0
	}
	if r.SortOrder == pb.RangeRequest_NONE {
		// etcd sorts each chunk by the target and goes on after its last key: keys are lost and doubled. keelson answers in the
		// order of the keys (docs/differences.md).
		r.SortTarget = pb.RangeRequest_KEY
	}
	return d.both(&request{kind: "rangestream", msg: r, send: func(ctx context.Context, s *side) (proto.Message, error) {
		return rangeStream(ctx, s, r)
	}})
}

func (d *differ) deleteRequest() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{PrevKv: d.chance(40)}
	if d.chance(80) {
		r.Key = d.key()
		return r
	}
	r.Key, r.RangeEnd = d.interval()
	return r
}

func (d *differ) stepDelete() error {
	r := d.deleteRequest()
	return d.both(&request{kind: "delete", msg: r, send: func(ctx context.Context, s *side) (proto.Message, error) { return s.kv.DeleteRange(ctx, r) }})
}

func (d *differ) compare() *pb.Compare {
	c := &pb.Compare{Result: pb.Compare_CompareResult(d.rng.IntN(4)), Target: pb.Compare_CompareTarget(d.rng.IntN(5)), Key: d.key()}
	if d.chance(20) {
		c.Key, c.RangeEnd = d.interval()
	}
	target := c.Target
	if d.chance(3) {
		// The union need not match the target: etcd then compares with zero.
		target = pb.Compare_CompareTarget(d.rng.IntN(5))
	}
	if d.chance(1) {
		c.Result = 9
	}
	if d.chance(1) {
		c.Target = 9
	}
	switch target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: d.rng.Int64N(6)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: []int64{0, d.revision()}[d.rng.IntN(2)]}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: []int64{0, d.revision()}[d.rng.IntN(2)]}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: d.value()}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: []int64{0, d.leaseID()}[d.rng.IntN(2)]}
	}
	if d.chance(3) {
		c.TargetUnion = nil
	}
	return c
}

// txn: used holds the keys put or deleted so far, so that most transactions have no duplicate; readOnly ones exist.
func (d *differ) txn(depth int, used map[string]bool, readOnly bool) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range d.rng.IntN(3) {
		t.Compare = append(t.Compare, d.compare())
	}
	t.Success = d.ops(depth, used, readOnly)
	t.Failure = d.ops(depth, used, readOnly)
	return t
}

func (d *differ) ops(depth int, used map[string]bool, readOnly bool) (ops []*pb.RequestOp) {
	for range d.rng.IntN(5) {
		p := d.rng.IntN(100)
		switch {
		case p < 30 || readOnly:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: d.rangeRequest()}})
		case p < 65:
			r := d.putRequest()
			if used[string(r.Key)] && d.chance(90) {
				continue
			}
			if used["deleted to the last key"] {
				// A put that keeps what such a delete has just taken crashes etcd; keelson refuses it (docs/differences.md).
				r.IgnoreValue, r.IgnoreLease = false, false
			}
			used[string(r.Key)] = true
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}})
		case p < 82:
			r := d.deleteRequest()
			if d.chance(92) {
				r.RangeEnd = nil
			}
			if used[string(r.Key)] && d.chance(90) {
				continue
			}
			used[string(r.Key)] = true
			if string(r.RangeEnd) == "\x00" {
				used["deleted to the last key"] = true
			}
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}})
		case p < 98:
			if depth < 3 {
				ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: d.txn(depth+1, used, false)}})
			}
		default:
			if d.chance(15) {
				ops = append(ops, &pb.RequestOp{})
			}
		}
	}
	return ops
}

func (d *differ) stepTxn() error {
	t := d.txn(0, map[string]bool{}, d.chance(10))
	switch {
	case d.chance(1):
		// One more than --max-txn-ops.
		for len(t.Success) < 129 {
			t.Success = append(t.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a")}}})
		}
	case d.chance(1):
		for i := 0; len(t.Failure) < 128; i++ {
			t.Failure = append(t.Failure, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "many/%d", i)}}})
		}
	case d.chance(35):
		// Kubernetes' shape: put or delete if the key is unchanged, else read it.
		key := d.keys[d.rng.IntN(77)]
		t = &pb.TxnRequest{Compare: []*pb.Compare{{Target: pb.Compare_MOD, Key: key, TargetUnion: &pb.Compare_ModRevision{ModRevision: []int64{0, d.revision()}[d.rng.IntN(2)]}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: d.value()}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}}}
		if d.chance(25) {
			t.Success = []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}}
		}
	}
	return d.both(&request{kind: "txn", msg: t, send: func(ctx context.Context, s *side) (proto.Message, error) { return s.kv.Txn(ctx, t) }})
}

func compactCall(rev int64, physical bool) func(context.Context, *side) (proto.Message, error) {
	return func(ctx context.Context, s *side) (proto.Message, error) {
		return s.kv.Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: physical})
	}
}

func (d *differ) stepCompact() error {
	r := &pb.CompactionRequest{Revision: d.revision(), Physical: d.chance(40)}
	if err := d.settle(); err != nil {
		return err
	}
	if d.oracle != nil {
		// prev_kv of an event that is still on its way would be compacted away on one side only.
		if err := d.drain(); err != nil {
			return err
		}
		d.awaitSilent()
	}
	a, err := d.ask(&request{kind: "compact", msg: r, send: compactCall(r.Revision, r.Physical)})
	if err == nil && a.err == nil {
		d.compactRev = r.Revision
		d.unsettled = !r.Physical
		d.history = slices.DeleteFunc(d.history, func(e event) bool { return e.rev < d.compactRev })
	}
	return err
}

func grantCall(r *pb.LeaseGrantRequest) func(context.Context, *side) (proto.Message, error) {
	return func(ctx context.Context, s *side) (proto.Message, error) { return s.lease.LeaseGrant(ctx, r) }
}

func (d *differ) stepLeaseGrant() error {
	// TTLs 10,000 s apart, so that the order of LeaseLeases (by expiry) is the same on both sides, and none expires.
	r := &pb.LeaseGrantRequest{ID: 1 + d.rng.Int64N(60), TTL: 10000 * (1 + d.rng.Int64N(30))}
	if d.chance(5) {
		r.ID = -r.ID
	}
	switch {
	case d.chance(3):
		r.TTL = 9_000_000_001 + d.rng.Int64N(1000)
	case d.chance(1):
		r.TTL = math.MaxInt64
	case d.chance(1):
		r.TTL = 9_000_000_000
	}
	a, err := d.ask(&request{kind: "lease-grant", msg: r, send: grantCall(r)})
	if err == nil && a.err == nil {
		d.leases = append(d.leases, r.ID)
	}
	return err
}

func revokeCall(id int64) func(context.Context, *side) (proto.Message, error) {
	return func(ctx context.Context, s *side) (proto.Message, error) {
		return s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	}
}

// stepLeaseShort grants below the minimum and revokes at once, before it can expire on either side.
func (d *differ) stepLeaseShort() error {
	r := &pb.LeaseGrantRequest{ID: 1_000_000 + d.rng.Int64N(1000), TTL: []int64{0, -1, 1, 2, 3, math.MinInt64}[d.rng.IntN(6)]}
	if err := d.both(&request{kind: "lease-short", msg: r, send: grantCall(r)}); err != nil {
		return err
	}
	return d.both(&request{kind: "lease-revoke", msg: &pb.LeaseRevokeRequest{ID: r.ID}, send: revokeCall(r.ID)})
}

func (d *differ) stepLeaseRevoke() error {
	id := d.leaseID()
	a, err := d.ask(&request{kind: "lease-revoke", msg: &pb.LeaseRevokeRequest{ID: id}, send: revokeCall(id)})
	if err == nil && a.err == nil {
		d.leases = slices.DeleteFunc(d.leases, func(x int64) bool { return x == id })
	}
	return err
}

func (d *differ) stepLeaseTimeToLive() error {
	r := &pb.LeaseTimeToLiveRequest{ID: d.leaseID(), Keys: d.chance(70)}
	return d.both(&request{kind: "lease-ttl", msg: r, send: func(ctx context.Context, s *side) (proto.Message, error) { return s.lease.LeaseTimeToLive(ctx, r) }})
}

func (d *differ) stepLeaseList() error {
	r := &pb.LeaseLeasesRequest{}
	return d.both(&request{kind: "lease-list", msg: r, send: func(ctx context.Context, s *side) (proto.Message, error) { return s.lease.LeaseLeases(ctx, r) }})
}

func (d *differ) stepLeaseKeepAlive() error {
	r := &pb.LeaseKeepAliveRequest{ID: d.leaseID()}
	return d.both(&request{kind: "lease-keepalive", msg: r, send: func(ctx context.Context, s *side) (proto.Message, error) { return s.renew(ctx, r) }})
}

func hashRequest(rev int64) *request {
	r := &pb.HashKVRequest{Revision: rev}
	return &request{kind: "hashkv", msg: r, send: func(ctx context.Context, s *side) (proto.Message, error) { return s.maint.HashKV(ctx, r) }}
}

func (d *differ) stepHashKV() error {
	if err := d.settle(); err != nil {
		return err
	}
	rev := int64(0)
	if d.chance(75) {
		rev = d.revision()
	}
	return d.both(hashRequest(rev))
}

func (d *differ) stepWatch() error {
	p := d.streams[d.rng.IntN(len(d.streams))]
	switch n := d.rng.IntN(100); {
	case n < 55:
		if len(p.watchers) >= watchersPerStream {
			return d.stepWatchCancel(p)
		}
		return d.stepWatchCreate(p)
	case n < 80:
		return d.stepWatchCancel(p)
	case n < 97:
		return d.requestProgress(p)
	default:
		return d.stepWatchReopen(p)
	}
}

func (d *differ) stepWatchCreate(p *pairStream) error {
	c := &pb.WatchCreateRequest{PrevKv: d.chance(50), ProgressNotify: d.chance(20), Fragment: d.chance(15)}
	c.Key, c.RangeEnd = d.interval()
	if d.chance(45) {
		c.Key = []byte{"a/"[0]}
		c.RangeEnd = [][]byte{{0}, []byte("b"), []byte("a1")}[d.rng.IntN(3)]
	}
	if d.chance(45) {
		c.StartRevision = d.revision()
	}
	if d.compactRev > 1 && d.chance(10) {
		c.StartRevision = 1 + d.rng.Int64N(d.compactRev-1)
	}
	if c.StartRevision > d.rev+10 && d.chance(80) {
		c.StartRevision = d.rev + 3
	}
	if d.chance(20) {
		c.WatchId = []int64{1, 2, 3, 5, 1000, -7, math.MaxInt64}[d.rng.IntN(7)]
	}
	for _, f := range []pb.WatchCreateRequest_FilterType{0, 1, 5} {
		if d.chance(8) {
			c.Filters = append(c.Filters, f)
		}
	}
	return d.createWatcher(p, c)
}

func (d *differ) stepWatchCancel(p *pairStream) error {
	cancel := func(id int64) *pb.WatchRequest {
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
	}
	if len(p.watchers) == 0 || d.chance(10) {
		// Unknown to both: no answer at all.
		d.count("watch-cancel", "unknown id: no answer is due")
		return p.send(cancel(987654))
	}
	ids := make([]int64, 0, len(p.watchers))
	for id := range p.watchers {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	id := ids[d.rng.IntN(len(ids))]
	if err := d.drain(); err != nil {
		return err
	}
	if _, err := d.control(p, "watch-cancel", cancel(id)); err != nil {
		return err
	}
	d.count("watch-cancel", "")
	delete(p.watchers, id)
	return nil
}

func (d *differ) stepWatchReopen(p *pairStream) error {
	if err := d.drain(); err != nil {
		return err
	}
	for _, ss := range p.side {
		ss.cancel()
	}
	fresh, err := d.openPair()
	if err != nil {
		return err
	}
	d.count("watch-reopen", "")
	*p = *fresh
	return nil
}

// stepCluster: membership and maintenance requests that must be refused, each with its own words.
func (d *differ) stepCluster() error {
	const nobody = 0x1234
	calls := []func() (proto.Message, func(context.Context, *side) (proto.Message, error)){
		func() (proto.Message, func(context.Context, *side) (proto.Message, error)) {
			r := &pb.MemberRemoveRequest{ID: nobody}
			return r, func(ctx context.Context, s *side) (proto.Message, error) { return s.cluster.MemberRemove(ctx, r) }
		},
		func() (proto.Message, func(context.Context, *side) (proto.Message, error)) {
			r := &pb.MemberPromoteRequest{ID: nobody}
			return r, func(ctx context.Context, s *side) (proto.Message, error) { return s.cluster.MemberPromote(ctx, r) }
		},
		func() (proto.Message, func(context.Context, *side) (proto.Message, error)) {
			r := &pb.MemberUpdateRequest{ID: nobody, PeerURLs: []string{"http://127.0.0.1:1"}}
			return r, func(ctx context.Context, s *side) (proto.Message, error) { return s.cluster.MemberUpdate(ctx, r) }
		},
		func() (proto.Message, func(context.Context, *side) (proto.Message, error)) {
			r := &pb.MemberAddRequest{PeerURLs: []string{"not a url"}}
			return r, func(ctx context.Context, s *side) (proto.Message, error) { return s.cluster.MemberAdd(ctx, r) }
		},
		func() (proto.Message, func(context.Context, *side) (proto.Message, error)) {
			r := &pb.MoveLeaderRequest{TargetID: nobody}
			return r, func(ctx context.Context, s *side) (proto.Message, error) { return s.maint.MoveLeader(ctx, r) }
		},
		func() (proto.Message, func(context.Context, *side) (proto.Message, error)) {
			r := &pb.AlarmRequest{Action: pb.AlarmRequest_GET, Alarm: pb.AlarmType(d.rng.IntN(3))}
			return r, func(ctx context.Context, s *side) (proto.Message, error) { return s.maint.Alarm(ctx, r) }
		},
		func() (proto.Message, func(context.Context, *side) (proto.Message, error)) {
			r := &pb.DowngradeRequest{Action: pb.DowngradeRequest_DowngradeAction([]int32{0, 0, 0, 2}[d.rng.IntN(4)]), Version: []string{"", "abc", "3.9.0", "3.7.0", "3.5.0"}[d.rng.IntN(5)]}
			return r, func(ctx context.Context, s *side) (proto.Message, error) { return s.maint.Downgrade(ctx, r) }
		},
	}
	msg, send := calls[d.rng.IntN(len(calls))]()
	return d.both(&request{kind: "cluster", msg: msg, note: string(msg.ProtoReflect().Descriptor().Name()), send: send})
}

// stepMalformed: what is not a request of this API.
func (d *differ) stepMalformed() error {
	methods := []string{"/etcdserverpb.KV/Nothing", "/etcdserverpb.Nothing/Put", "/nothing/nothing"}
	if d.chance(40) {
		method := methods[d.rng.IntN(len(methods))]
		return d.both(&request{kind: "malformed", msg: &emptypb.Empty{}, note: method, send: func(ctx context.Context, s *side) (proto.Message, error) {
			out := &emptypb.Empty{}
			return out, s.conn.Invoke(ctx, method, &emptypb.Empty{}, out, grpc.WaitForReady(true))
		}})
	}
	bodies := [][]byte{{0xff}, {0x0a, 0x05, 'a'}, {0x0a}, {0x08, 0x01}, {0x0b}, {0x0c}, {0x0f, 0x00},
		{0x00, 0x00}, {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}}
	raw := bodies[d.rng.IntN(len(bodies))]
	method := []string{"/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn"}[d.rng.IntN(3)]
	out := map[string]proto.Message{"/etcdserverpb.KV/Put": &pb.PutResponse{}, "/etcdserverpb.KV/Range": &pb.RangeResponse{}, "/etcdserverpb.KV/Txn": &pb.TxnResponse{}}[method]
	return d.both(&request{kind: "malformed", codeOnly: true, note: fmt.Sprintf("%s raw=%x", method, raw), send: func(ctx context.Context, s *side) (proto.Message, error) {
		return invokeRaw(ctx, s, method, raw, proto.Clone(out))
	}})
}

// stepLarge: just below, between and above the two bounds (etcd's own at 1.5 MiB, gRPC's at 2 MiB).
func (d *differ) stepLarge() error {
	size := []int{1 << 20, 1500 << 10, 1537 << 10, 1800 << 10, 2048<<10 - 100, 2048<<10 + 1000, 3 << 20}[d.rng.IntN(7)]
	r := &pb.PutRequest{Key: []byte("a/00"), Value: bytes.Repeat([]byte{'v'}, size)}
	return d.both(&request{kind: "large", msg: &pb.PutRequest{Key: r.Key}, note: fmt.Sprintf("value of %d bytes", size),
		send: func(ctx context.Context, s *side) (proto.Message, error) { return s.kv.Put(ctx, r) }})
}

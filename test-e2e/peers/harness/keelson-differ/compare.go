package main

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Go's sort.Sort is a plain insertion sort, hence stable, up to this length; beyond it etcd's order of ties is an
// accident of pdqsort that nobody should copy.
const stableSortMax = 12

// Sent as UNKNOWN by etcd because of a slip in its error map; a server may send the declared code instead
// (ETCD-SURFACE.md section 8, "Wire quirks").
var codeMayDiffer = map[string]bool{
	"etcdserver: re-configuration failed due to not enough started members": true,
	"etcdserver: too many requests":                                         true,
}

// compareAnswers returns nil when they agree.
func (d *differ) compareAnswers(r *request, a, b answer) error {
	if a.extra != "" || b.extra != "" {
		return d.report(r, a, b, "stream shape")
	}
	if a.err != nil || b.err != nil {
		if sameError(r, a.err, b.err) {
			return nil
		}
		return d.report(r, a, b, "error")
	}
	ma, mb := proto.Clone(a.msg), proto.Clone(b.msg)
	normalise(ma.ProtoReflect())
	normalise(mb.ProtoReflect())
	d.canonical(r.msg, ma)
	d.canonical(r.msg, mb)
	looseTTL(ma, mb)
	if proto.Equal(ma, mb) {
		return nil
	}
	return d.report(r, a, b, "response")
}

func sameError(r *request, a, b error) bool {
	if a == nil || b == nil {
		return false
	}
	sa, sb := status.Convert(a), status.Convert(b)
	if r.codeOnly {
		return sa.Code() == sb.Code()
	}
	if sa.Message() != sb.Message() {
		return false
	}
	if sa.Code() == sb.Code() {
		return true
	}
	return codeMayDiffer[sa.Message()] && quirkCode(sa.Code()) && quirkCode(sb.Code())
}

func quirkCode(c codes.Code) bool {
	return c == codes.Unknown || c == codes.ResourceExhausted || c == codes.FailedPrecondition
}

// normalise replaces what must differ between two clusters by whether it is there at all.
func normalise(m protoreflect.Message) {
	if m.Descriptor().FullName() == "etcdserverpb.ResponseHeader" {
		h := m.Interface().(*pb.ResponseHeader)
		h.ClusterId, h.MemberId, h.RaftTerm = min(h.ClusterId, 1), min(h.MemberId, 1), min(h.RaftTerm, 1)
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind || fd.IsMap() {
			return true
		}
		if fd.IsList() {
			for i := range v.List().Len() {
				normalise(v.List().Get(i).Message())
			}
			return true
		}
		normalise(v.Message())
		return true
	})
}

// canonical orders what etcd leaves unordered: ties of sorted ranges, a lease's keys (a Go map).
func (d *differ) canonical(req, resp proto.Message) {
	switch m := resp.(type) {
	case *pb.RangeResponse:
		if r, ok := req.(*pb.RangeRequest); ok {
			d.canonicalRange(r, m)
		}
	case *pb.TxnResponse:
		if r, ok := req.(*pb.TxnRequest); ok {
			d.canonicalTxn(r, m)
		}
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(m.Keys, bytes.Compare)
	}
}

func (d *differ) canonicalTxn(req *pb.TxnRequest, resp *pb.TxnResponse) {
	ops := req.Success
	if !resp.Succeeded {
		ops = req.Failure
	}
	if len(ops) != len(resp.Responses) {
		return
	}
	for i, op := range ops {
		if rr := resp.Responses[i].GetResponseRange(); rr != nil && op.GetRequestRange() != nil {
			d.canonicalRange(op.GetRequestRange(), rr)
		}
		if tr := resp.Responses[i].GetResponseTxn(); tr != nil && op.GetRequestTxn() != nil {
			d.canonicalTxn(op.GetRequestTxn(), tr)
		}
	}
}

func (d *differ) canonicalRange(req *pb.RangeRequest, resp *pb.RangeResponse) {
	if req.SortTarget == pb.RangeRequest_KEY || resp.Count <= stableSortMax {
		return
	}
	if req.SortTarget == pb.RangeRequest_VALUE && req.KeysOnly {
		// The values that would tell ties apart are not in the answer: only the length can be compared when it is cut.
		cut := req.Limit > 0
		for i := range resp.Kvs {
			if cut {
				resp.Kvs[i] = &mvccpb.KeyValue{}
			}
		}
		slices.SortFunc(resp.Kvs, func(x, y *mvccpb.KeyValue) int { return bytes.Compare(x.Key, y.Key) })
		return
	}
	order := func(x, y *mvccpb.KeyValue) int {
		switch req.SortTarget {
		case pb.RangeRequest_VERSION:
			return cmp.Compare(x.Version, y.Version)
		case pb.RangeRequest_CREATE:
			return cmp.Compare(x.CreateRevision, y.CreateRevision)
		case pb.RangeRequest_MOD:
			return cmp.Compare(x.ModRevision, y.ModRevision)
		default:
			return bytes.Compare(x.Value, y.Value)
		}
	}
	for from := 0; from < len(resp.Kvs); {
		to := from + 1
		for to < len(resp.Kvs) && order(resp.Kvs[from], resp.Kvs[to]) == 0 {
			to++
		}
		group := resp.Kvs[from:to]
		if len(group) > 1 {
			d.ties++
		}
		slices.SortFunc(group, func(x, y *mvccpb.KeyValue) int { return bytes.Compare(x.Key, y.Key) })
		if to == len(resp.Kvs) && req.Limit > 0 {
			// The limit cuts through this group: who of it is in is the accident again, its sort value is not.
			for i, kv := range group {
				group[i] = sortValueOnly(req.SortTarget, kv)
			}
		}
		from = to
	}
}

func sortValueOnly(target pb.RangeRequest_SortTarget, kv *mvccpb.KeyValue) *mvccpb.KeyValue {
	switch target {
	case pb.RangeRequest_VERSION:
		return &mvccpb.KeyValue{Version: kv.Version}
	case pb.RangeRequest_CREATE:
		return &mvccpb.KeyValue{CreateRevision: kv.CreateRevision}
	case pb.RangeRequest_MOD:
		return &mvccpb.KeyValue{ModRevision: kv.ModRevision}
	default:
		return &mvccpb.KeyValue{Value: kv.Value}
	}
}

// looseTTL forgives two seconds of remaining time: the two servers granted at slightly different instants.
func looseTTL(a, b proto.Message) {
	ta, okA := a.(*pb.LeaseTimeToLiveResponse)
	tb, okB := b.(*pb.LeaseTimeToLiveResponse)
	if okA && okB && ta.TTL >= 0 && tb.TTL >= 0 && ta.TTL-tb.TTL <= 2 && tb.TTL-ta.TTL <= 2 {
		tb.TTL = ta.TTL
	}
}

func (d *differ) report(r *request, a, b answer, what string) error {
	return fmt.Errorf("%s of %s %s\n--- request\n%s\n--- A (reference)\n%s\n--- B (under test)\n%s", what, r.kind, r.note,
		show(r.msg), showAnswer(a), showAnswer(b))
}

func showAnswer(a answer) string {
	s := ""
	if a.err != nil {
		st := status.Convert(a.err)
		s = fmt.Sprintf("error code=%d (%s) message=%q\n", st.Code(), st.Code(), st.Message())
	}
	if a.extra != "" {
		s += "stream:" + a.extra + "\n"
	}
	if a.err == nil || a.extra != "" {
		s += show(a.msg)
	}
	return s
}

func show(m proto.Message) string {
	if m == nil {
		return "(none)"
	}
	text := prototext.MarshalOptions{Multiline: true, Indent: "  "}.Format(m)
	if len(text) > 6000 {
		text = text[:6000] + fmt.Sprintf("\n... (%d characters)", len(text))
	}
	return text
}

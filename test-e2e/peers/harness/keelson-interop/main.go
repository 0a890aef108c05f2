// keelson-interop drives one server through clientv3, the client that Kubernetes uses, and says what works.
// It looks at what the differential tester cannot: deadlines, cancellation, big messages, many streams, snapshots.
// It wants a server of its own: it writes below "interop/" and compacts.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type suite struct {
	client   *clientv3.Client
	endpoint string
	ctx      context.Context
	name     string
}

// failure unwinds one check; the others go on.
type failure struct{ text string }

func (s *suite) must(err error, what string) {
	if err != nil {
		panic(failure{fmt.Sprintf("%s: %v", what, err)})
	}
}

func (s *suite) check(ok bool, format string, args ...any) {
	if !ok {
		panic(failure{fmt.Sprintf(format, args...)})
	}
}

// key of this check alone, so that checks do not see each other.
func (s *suite) key(k string) string { return fmt.Sprintf("interop/%d/%s/%s", runID, s.name, k) }

// runID: versions and counts start from nothing in every run, whatever the server holds already.
var runID = time.Now().UnixNano()

type test struct {
	name string
	run  func(*suite)
}

var tests = []test{
	{"put-get", putGet}, {"get-options", getOptions}, {"delete", deleteKeys}, {"txn", txn}, {"compact", compact},
	{"empty-values-and-bytes", oddBytes}, {"value-1MiB", value1MiB}, {"value-too-large", valueTooLarge}, {"response-20MiB", response20MiB},
	{"rangestream", rangeStream}, {"lease", lease}, {"lease-keepalive", leaseKeepAlive}, {"lease-expiry", leaseExpiry},
	{"watch", watch}, {"watch-prev-kv", watchPrevKV}, {"watch-progress", watchProgress}, {"watch-compacted", watchCompacted},
	{"watch-fragment", watchFragment}, {"watch-many-on-one-stream", watchMany}, {"watch-slow-reader", watchSlowReader},
	{"streams-200", streams200}, {"connections-100", connections100}, {"deadline", deadline}, {"cancellation", cancellation},
	{"abandoned-streams", abandonedStreams}, {"gzip", gzipped}, {"metadata", bigMetadata}, {"require-leader", requireLeader},
	{"unimplemented", unimplemented}, {"health-service", healthService}, {"status", statusFields}, {"hashkv", hashKV}, {"alarm", alarm},
	{"snapshot", snapshot}, {"defragment", defragment}, {"member-list", memberList}, {"member-errors", memberErrors},
}

func main() {
	endpoint := flag.String("endpoint", "127.0.0.1:2379", "the server")
	only := flag.String("only", "", "run the checks whose name contains this")
	flag.Parse()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{*endpoint}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(), MaxCallRecvMsgSize: math.MaxInt32})
	if err != nil {
		fmt.Fprintln(os.Stderr, "keelson-interop:", err)
		os.Exit(2)
	}
	passed, failed := 0, 0
	for _, t := range tests {
		if !strings.Contains(t.name, *only) {
			continue
		}
		started := time.Now()
		if err := runOne(&suite{client: client, endpoint: *endpoint, name: t.name}, t); err != nil {
			failed++
			fmt.Printf("FAIL %s (%.2fs): %v\n", t.name, time.Since(started).Seconds(), err)
			continue
		}
		passed++
		fmt.Printf("PASS %s (%.2fs)\n", t.name, time.Since(started).Seconds())
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}

func runOne(s *suite, t test) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	s.ctx = ctx
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(r)
			}
			err = errors.New(f.text)
		}
	}()
	t.run(s)
	return nil
}

// --- keys

func putGet(s *suite) {
	p, err := s.client.Put(s.ctx, s.key("a"), "1")
	s.must(err, "put")
	g, err := s.client.Get(s.ctx, s.key("a"))
	s.must(err, "get")
	s.check(len(g.Kvs) == 1 && string(g.Kvs[0].Value) == "1" && g.Kvs[0].Version == 1 && g.Count == 1, "get: %v", g)
	s.check(g.Kvs[0].ModRevision == p.Header.Revision && g.Kvs[0].CreateRevision == p.Header.Revision, "revisions of %v, put at %d", g.Kvs[0], p.Header.Revision)
	s.check(p.Header.ClusterId != 0 && p.Header.MemberId != 0 && p.Header.RaftTerm != 0, "header %v", p.Header)
	p, err = s.client.Put(s.ctx, s.key("a"), "2", clientv3.WithPrevKV())
	s.must(err, "put with prev_kv")
	s.check(p.PrevKv != nil && string(p.PrevKv.Value) == "1", "prev_kv %v", p.PrevKv)
	g, err = s.client.Get(s.ctx, s.key("a"), clientv3.WithRev(p.PrevKv.ModRevision))
	s.must(err, "get at a past revision")
	s.check(string(g.Kvs[0].Value) == "1" && g.Header.Revision >= p.Header.Revision, "past get: %v", g)
	_, err = s.client.Get(s.ctx, s.key("a"), clientv3.WithRev(p.Header.Revision+1000))
	s.check(errors.Is(err, rpctypes.ErrFutureRev), "future revision: %v", err)
	_, err = s.client.Put(s.ctx, "", "x")
	s.check(errors.Is(err, rpctypes.ErrEmptyKey), "empty key: %v", err)
	_, err = s.client.Put(s.ctx, s.key("none"), "", clientv3.WithIgnoreValue())
	s.check(errors.Is(err, rpctypes.ErrKeyNotFound), "ignore_value of no key: %v", err)
}

func getOptions(s *suite) {
	for i := range 30 {
		_, err := s.client.Put(s.ctx, s.key(fmt.Sprintf("%02d", i)), fmt.Sprint(100-i))
		s.must(err, "put")
	}
	g, err := s.client.Get(s.ctx, s.key(""), clientv3.WithPrefix(), clientv3.WithLimit(7))
	s.must(err, "limited get")
	s.check(len(g.Kvs) == 7 && g.More && g.Count == 30, "limit: %d kvs, more %v, count %d", len(g.Kvs), g.More, g.Count)
	g, err = s.client.Get(s.ctx, s.key(""), clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(1))
	s.must(err, "sorted get")
	s.check(strings.HasSuffix(string(g.Kvs[0].Key), "29"), "newest is %s", g.Kvs[0].Key)
	g, err = s.client.Get(s.ctx, s.key(""), clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithSerializable())
	s.must(err, "keys only")
	s.check(len(g.Kvs) == 30 && len(g.Kvs[3].Value) == 0, "keys only: %d", len(g.Kvs))
	g, err = s.client.Get(s.ctx, s.key("10"), clientv3.WithRange(s.key("20")), clientv3.WithCountOnly())
	s.must(err, "count")
	s.check(g.Count == 10 && len(g.Kvs) == 0, "count only: %v", g)
}

func deleteKeys(s *suite) {
	for _, k := range []string{"a", "b", "c"} {
		_, err := s.client.Put(s.ctx, s.key(k), k)
		s.must(err, "put")
	}
	d, err := s.client.Delete(s.ctx, s.key(""), clientv3.WithPrefix(), clientv3.WithPrevKV())
	s.must(err, "delete")
	s.check(d.Deleted == 3 && len(d.PrevKvs) == 3 && string(d.PrevKvs[1].Value) == "b", "delete: %v", d)
	again, err := s.client.Delete(s.ctx, s.key("a"))
	s.must(err, "delete of nothing")
	s.check(again.Deleted == 0 && again.Header.Revision == d.Header.Revision, "deleting nothing moved the revision: %v after %v", again.Header, d.Header)
}

func txn(s *suite) {
	k := s.key("k")
	create := func() *clientv3.TxnResponse {
		r, err := s.client.Txn(s.ctx).If(clientv3.Compare(clientv3.ModRevision(k), "=", 0)).
			Then(clientv3.OpPut(k, "v"), clientv3.OpPut(s.key("l"), "w")).Else(clientv3.OpGet(k)).Commit()
		s.must(err, "txn")
		return r
	}
	first, second := create(), create()
	s.check(first.Succeeded && !second.Succeeded, "create twice: %v %v", first.Succeeded, second.Succeeded)
	s.check(len(second.Responses[0].GetResponseRange().Kvs) == 1, "else branch: %v", second.Responses)
	nested, err := s.client.Txn(s.ctx).If(clientv3.Compare(clientv3.Value(k), "=", "v"), clientv3.Compare(clientv3.Version(k), "<", 2)).
		Then(clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(k), ">", 0)}, []clientv3.Op{clientv3.OpDelete(k)}, nil)).Commit()
	s.must(err, "nested txn")
	s.check(nested.Responses[0].GetResponseTxn().Succeeded && nested.Responses[0].GetResponseTxn().Responses[0].GetResponseDeleteRange().Deleted == 1, "nested: %v", nested)
	_, err = s.client.Txn(s.ctx).Then(clientv3.OpPut(k, "1"), clientv3.OpPut(k, "2")).Commit()
	s.check(errors.Is(err, rpctypes.ErrDuplicateKey), "duplicate key: %v", err)
	var ops []clientv3.Op
	for i := range 129 {
		ops = append(ops, clientv3.OpPut(s.key(fmt.Sprint(i)), ""))
	}
	_, err = s.client.Txn(s.ctx).Then(ops...).Commit()
	s.check(errors.Is(err, rpctypes.ErrTooManyOps), "129 operations: %v", err)
	_, err = s.client.Txn(s.ctx).Then(ops[:128]...).Commit()
	s.must(err, "128 operations")
}

func compact(s *suite) {
	var rev int64
	for i := range 5 {
		p, err := s.client.Put(s.ctx, s.key("k"), fmt.Sprint(i))
		s.must(err, "put")
		rev = p.Header.Revision
	}
	_, err := s.client.Compact(s.ctx, rev-1, clientv3.WithCompactPhysical())
	s.must(err, "compact")
	_, err = s.client.Get(s.ctx, s.key("k"), clientv3.WithRev(rev-2))
	s.check(errors.Is(err, rpctypes.ErrCompacted), "compacted revision: %v", err)
	g, err := s.client.Get(s.ctx, s.key("k"), clientv3.WithRev(rev-1))
	s.must(err, "get at the compaction revision")
	s.check(string(g.Kvs[0].Value) == "3", "at the compaction revision: %v", g.Kvs)
	_, err = s.client.Compact(s.ctx, rev-1)
	s.check(errors.Is(err, rpctypes.ErrCompacted), "compact twice: %v", err)
	_, err = s.client.Compact(s.ctx, rev+1000)
	s.check(errors.Is(err, rpctypes.ErrFutureRev), "compact the future: %v", err)
}

func oddBytes(s *suite) {
	for _, k := range []string{"\x00", "\xff", "a\x00b", "a\x00\xff", strings.Repeat("long", 2048)} {
		_, err := s.client.Put(s.ctx, s.key(k), "")
		s.must(err, "put")
		g, err := s.client.Get(s.ctx, s.key(k))
		s.must(err, "get")
		s.check(len(g.Kvs) == 1 && string(g.Kvs[0].Key) == s.key(k) && len(g.Kvs[0].Value) == 0, "key %.20q: %v", k, len(g.Kvs))
	}
	g, err := s.client.Get(s.ctx, s.key(""), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	s.must(err, "get all")
	for i := 1; i < len(g.Kvs); i++ {
		s.check(bytes.Compare(g.Kvs[i-1].Key, g.Kvs[i].Key) < 0, "order of %.30q and %.30q", g.Kvs[i-1].Key, g.Kvs[i].Key)
	}
	s.check(len(g.Kvs) == 5, "%d keys", len(g.Kvs))
}

// --- sizes

func value1MiB(s *suite) {
	v := strings.Repeat("0123456789abcdef", 65536)
	_, err := s.client.Put(s.ctx, s.key("k"), v)
	s.must(err, "put of 1 MiB")
	g, err := s.client.Get(s.ctx, s.key("k"))
	s.must(err, "get of 1 MiB")
	s.check(string(g.Kvs[0].Value) == v, "1 MiB came back changed (%d bytes)", len(g.Kvs[0].Value))
}

func valueTooLarge(s *suite) {
	_, err := s.client.Put(s.ctx, s.key("k"), strings.Repeat("x", 1600<<10))
	s.check(errors.Is(err, rpctypes.ErrRequestTooLarge), "1.6 MiB: %v", err)
	kv := pb.NewKVClient(s.client.ActiveConnection())
	_, err = kv.Put(s.ctx, &pb.PutRequest{Key: []byte(s.key("k")), Value: make([]byte, 4<<20)}, grpc.MaxCallSendMsgSize(math.MaxInt32))
	s.check(status.Code(err) == codes.ResourceExhausted, "4 MiB: %v", err)
	_, err = s.client.Put(s.ctx, s.key("k"), "small again")
	s.must(err, "the connection after an oversize message")
}

func response20MiB(s *suite) {
	for i := range 20 {
		_, err := s.client.Put(s.ctx, s.key(fmt.Sprintf("%02d", i)), strings.Repeat(string(rune('a'+i)), 1<<20))
		s.must(err, "put")
	}
	g, err := s.client.Get(s.ctx, s.key(""), clientv3.WithPrefix())
	s.must(err, "get of 20 MiB")
	s.check(len(g.Kvs) == 20, "%d keys", len(g.Kvs))
	for i, kv := range g.Kvs {
		s.check(len(kv.Value) == 1<<20 && kv.Value[0] == byte('a'+i) && kv.Value[1<<20-1] == byte('a'+i), "value %d changed", i)
	}
	_, err = s.client.Delete(s.ctx, s.key(""), clientv3.WithPrefix())
	s.must(err, "delete")
}

func rangeStream(s *suite) {
	for i := range 300 {
		_, err := s.client.Put(s.ctx, s.key(fmt.Sprintf("%04d", i)), strings.Repeat("v", 2000))
		s.must(err, "put")
	}
	kv := pb.NewKVClient(s.client.ActiveConnection())
	stream, err := kv.RangeStream(s.ctx, &pb.RangeRequest{Key: []byte(s.key("")), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(s.key("")))})
	s.must(err, "rangestream")
	n, chunks := 0, 0
	var last *pb.RangeResponse
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		s.must(err, "chunk")
		last = m.RangeResponse
		for _, kv := range last.Kvs {
			s.check(string(kv.Key) == s.key(fmt.Sprintf("%04d", n)), "key %d is %s", n, kv.Key)
			n++
		}
		chunks++
	}
	s.check(n == 300 && chunks > 1, "%d keys in %d chunks", n, chunks)
	s.check(last.Header != nil && last.Header.Revision > 0 && last.Count == 300 && !last.More, "last chunk: header %v count %d more %v", last.Header, last.Count, last.More)
}

// --- leases

func lease(s *suite) {
	l, err := s.client.Grant(s.ctx, 300)
	s.must(err, "grant")
	s.check(l.ID > 0 && l.TTL == 300, "grant: %v", l)
	for _, k := range []string{"a", "b"} {
		_, err = s.client.Put(s.ctx, s.key(k), "", clientv3.WithLease(l.ID))
		s.must(err, "put with lease")
	}
	ttl, err := s.client.TimeToLive(s.ctx, l.ID, clientv3.WithAttachedKeys())
	s.must(err, "time to live")
	s.check(ttl.GrantedTTL == 300 && ttl.TTL > 290 && len(ttl.Keys) == 2, "time to live: %v", ttl)
	list, err := s.client.Leases(s.ctx)
	s.must(err, "leases")
	found := false
	for _, x := range list.Leases {
		found = found || x.ID == l.ID
	}
	s.check(found, "lease %d is not in %v", l.ID, list.Leases)
	_, err = s.client.Revoke(s.ctx, l.ID)
	s.must(err, "revoke")
	g, err := s.client.Get(s.ctx, s.key(""), clientv3.WithPrefix())
	s.must(err, "get")
	s.check(len(g.Kvs) == 0, "keys survive their lease: %v", g.Kvs)
	_, err = s.client.Put(s.ctx, s.key("a"), "", clientv3.WithLease(l.ID))
	s.check(errors.Is(err, rpctypes.ErrLeaseNotFound), "put with a revoked lease: %v", err)
	_, err = s.client.Revoke(s.ctx, l.ID)
	s.check(errors.Is(err, rpctypes.ErrLeaseNotFound), "revoke twice: %v", err)
}

func leaseKeepAlive(s *suite) {
	l, err := s.client.Grant(s.ctx, 3)
	s.must(err, "grant")
	_, err = s.client.Put(s.ctx, s.key("k"), "", clientv3.WithLease(l.ID))
	s.must(err, "put")
	ctx, cancel := context.WithCancel(s.ctx)
	c, err := s.client.KeepAlive(ctx, l.ID)
	s.must(err, "keep alive")
	until := time.After(5 * time.Second)
	answers := 0
	for open := true; open; {
		select {
		case r := <-c:
			s.check(r != nil && r.TTL == 3 && r.ID == l.ID, "keep alive answered %v", r)
			answers++
		case <-until:
			open = false
		}
	}
	cancel()
	s.check(answers >= 3, "%d answers in 5 s", answers)
	g, err := s.client.Get(s.ctx, s.key("k"))
	s.must(err, "get")
	s.check(len(g.Kvs) == 1, "the key died although its lease was kept")
	_, err = s.client.KeepAliveOnce(s.ctx, 999999)
	s.check(errors.Is(err, rpctypes.ErrLeaseNotFound), "keep alive of no lease: %v", err)
}

func leaseExpiry(s *suite) {
	l, err := s.client.Grant(s.ctx, 2)
	s.must(err, "grant")
	w := s.client.Watch(s.ctx, s.key(""), clientv3.WithPrefix())
	for i := range 3 {
		_, err = s.client.Put(s.ctx, s.key(fmt.Sprint(i)), "", clientv3.WithLease(l.ID))
		s.must(err, "put")
	}
	started := time.Now()
	var deletes []*clientv3.Event
	for len(deletes) < 3 && time.Since(started) < 10*time.Second {
		r := <-w
		s.must(r.Err(), "watch")
		for _, e := range r.Events {
			if e.Type == mvccpb.Event_DELETE {
				deletes = append(deletes, e)
			}
		}
	}
	s.check(len(deletes) == 3, "%d of 3 keys expired within 10 s", len(deletes))
	s.check(deletes[0].Kv.ModRevision == deletes[2].Kv.ModRevision, "expiry took more than one revision")
	s.check(time.Since(started) > 1500*time.Millisecond, "a lease of 2 s expired after %v", time.Since(started))
}

// --- watches

// collect takes n events or fails after some seconds.
func (s *suite) collect(c clientv3.WatchChan, n int) (events []*clientv3.Event) {
	limit := time.After(20 * time.Second)
	for len(events) < n {
		select {
		case r, ok := <-c:
			s.check(ok, "watch closed after %d of %d events", len(events), n)
			s.must(r.Err(), "watch")
			events = append(events, r.Events...)
		case <-limit:
			s.check(false, "%d of %d events after 20 s", len(events), n)
		}
	}
	s.check(len(events) == n, "%d events, %d expected", len(events), n)
	return events
}

func watch(s *suite) {
	p, err := s.client.Put(s.ctx, s.key("a"), "0")
	s.must(err, "put")
	past := s.client.Watch(s.ctx, s.key(""), clientv3.WithPrefix(), clientv3.WithRev(p.Header.Revision))
	filtered := s.client.Watch(s.ctx, s.key(""), clientv3.WithPrefix(), clientv3.WithRev(p.Header.Revision), clientv3.WithFilterPut())
	for i := range 100 {
		_, err = s.client.Put(s.ctx, s.key("a"), fmt.Sprint(i+1))
		s.must(err, "put")
	}
	_, err = s.client.Delete(s.ctx, s.key("a"))
	s.must(err, "delete")
	events := s.collect(past, 102)
	for i, e := range events {
		s.check(e.Kv.ModRevision == p.Header.Revision+int64(i), "event %d has revision %d", i, e.Kv.ModRevision)
	}
	s.check(events[101].Type == mvccpb.Event_DELETE && len(events[101].Kv.Value) == 0, "last event %v", events[101])
	only := s.collect(filtered, 1)
	s.check(only[0].Type == mvccpb.Event_DELETE, "a filtered put came through: %v", only[0])
}

func watchPrevKV(s *suite) {
	c := s.client.Watch(s.ctx, s.key("k"), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	s.check((<-c).Created, "no created notification")
	for _, v := range []string{"1", "2"} {
		_, err := s.client.Put(s.ctx, s.key("k"), v)
		s.must(err, "put")
	}
	_, err := s.client.Delete(s.ctx, s.key("k"))
	s.must(err, "delete")
	e := s.collect(c, 3)
	s.check(e[0].PrevKv == nil && string(e[1].PrevKv.Value) == "1" && string(e[2].PrevKv.Value) == "2", "prev_kv: %v", e)
}

func watchProgress(s *suite) {
	// hasleader: clientv3 keeps a stream for each set of metadata, and the progress answer comes on that stream.
	ctx := clientv3.WithRequireLeader(s.ctx)
	c := s.client.Watch(ctx, s.key("k"), clientv3.WithCreatedNotify())
	s.check((<-c).Created, "no created notification")
	p, err := s.client.Put(s.ctx, s.key("other"), "")
	s.must(err, "put")
	limit := time.After(10 * time.Second)
	for {
		s.must(s.client.RequestProgress(ctx), "progress request")
		select {
		case r := <-c:
			s.must(r.Err(), "watch")
			s.check(r.IsProgressNotify() && r.Header.Revision >= p.Header.Revision, "progress: %v", r)
			return
		case <-time.After(500 * time.Millisecond):
		case <-limit:
			s.check(false, "no progress answer in 10 s")
		}
	}
}

func watchCompacted(s *suite) {
	var rev int64
	for range 3 {
		p, err := s.client.Put(s.ctx, s.key("k"), "")
		s.must(err, "put")
		rev = p.Header.Revision
	}
	_, err := s.client.Compact(s.ctx, rev)
	s.must(err, "compact")
	r := <-s.client.Watch(s.ctx, s.key("k"), clientv3.WithRev(rev-2))
	s.check(r.Canceled && r.CompactRevision == rev && errors.Is(r.Err(), rpctypes.ErrCompacted), "watch of a compacted revision: %v, error %v", r, r.Err())
	at := s.collect(s.client.Watch(s.ctx, s.key("k"), clientv3.WithRev(rev)), 1)
	s.check(at[0].Kv.ModRevision == rev, "watch at the compaction revision: %v", at)
}

// watchFragment: 12 events of 1 MiB in one batch of catch-up do not fit one response of a fragmenting watcher.
// watchFragment: events beyond the request limit come in pieces, each small, the last without the mark. That revisions which catch up
// are put together into one response at all is etcd's habit, no promise; but one revision's events are one response: a deletion of
// twelve keys with their previous values has to be cut.
func watchFragment(s *suite) {
	const count = 12
	var first int64
	for i := range count {
		p, err := s.client.Put(s.ctx, s.key(fmt.Sprintf("%02d", i)), strings.Repeat("f", 1<<20))
		s.must(err, "put")
		if i == 0 {
			first = p.Header.Revision
		}
	}
	readFragments(s, first, count, mvccpb.Event_PUT)
	d, err := s.client.Delete(s.ctx, s.key(""), clientv3.WithPrefix())
	s.must(err, "delete")
	fragments := readFragments(s, d.Header.Revision, count, mvccpb.Event_DELETE)
	s.check(fragments > 0, "12 MiB of one revision came without a fragment")
}

// readFragments watches the check's keys from a revision until it has `count` events, and counts the fragments among the responses.
func readFragments(s *suite, rev int64, count int, kind mvccpb.Event_EventType) int {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	stream, err := pb.NewWatchClient(s.client.ActiveConnection()).Watch(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	s.must(err, "watch")
	s.must(stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(s.key("")), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(s.key(""))), StartRevision: rev, Fragment: true, PrevKv: true}}}), "create")
	n, fragments := 0, 0
	for n < count {
		wr, err := stream.Recv()
		s.must(err, "watch response")
		size := 0
		for _, e := range wr.Events {
			s.check(e.Type == kind && string(e.Kv.Key) == s.key(fmt.Sprintf("%02d", n)), "event %d is %s of %s", n, e.Type, e.Kv.Key)
			size += len(e.Kv.Value) + len(e.PrevKv.GetValue())
			n++
		}
		if wr.Fragment {
			fragments++
		}
		s.check(size <= 3<<20, "a fragment of %d bytes", size)
		s.check(n < count || !wr.Fragment, "the last response says that more fragments follow")
	}
	return fragments
}

func watchMany(s *suite) {
	const watchers = 500
	var chans []clientv3.WatchChan
	for i := range watchers {
		chans = append(chans, s.client.Watch(s.ctx, s.key(fmt.Sprintf("%d/", i%50)), clientv3.WithPrefix(), clientv3.WithCreatedNotify()))
	}
	for i, c := range chans {
		s.check((<-c).Created, "watcher %d was not created", i)
	}
	for i := range 50 {
		_, err := s.client.Put(s.ctx, s.key(fmt.Sprintf("%d/x", i)), "")
		s.must(err, "put")
	}
	for i, c := range chans {
		e := s.collect(c, 1)
		s.check(string(e[0].Kv.Key) == s.key(fmt.Sprintf("%d/x", i%50)), "watcher %d got %s", i, e[0].Kv.Key)
	}
}

// watchSlowReader: one stream that nobody reads holds back neither writers nor another stream, and loses nothing.
func watchSlowReader(s *suite) {
	conn := s.client.ActiveConnection()
	create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(s.key("k"))}}}
	slow, err := pb.NewWatchClient(conn).Watch(s.ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	s.must(err, "slow watch")
	s.must(slow.Send(create), "create")
	_, err = slow.Recv()
	s.must(err, "created")
	fast := s.client.Watch(s.ctx, s.key("k"), clientv3.WithCreatedNotify())
	s.check((<-fast).Created, "no created notification")
	const n = 400
	started := time.Now()
	for i := range n {
		_, err := s.client.Put(s.ctx, s.key("k"), strings.Repeat(string(rune('a'+i%26)), 50_000))
		s.must(err, "put beside a slow reader")
	}
	s.collect(fast, n)
	s.check(time.Since(started) < 25*time.Second, "writers were held back: %v", time.Since(started))
	version := int64(0)
	for version < n {
		wr, err := slow.Recv()
		s.must(err, "slow reader")
		s.check(!wr.Canceled, "slow reader cancelled: %v", wr)
		for _, e := range wr.Events {
			version++
			s.check(e.Kv.Version == version, "slow reader lost events: version %d, %d expected", e.Kv.Version, version)
		}
	}
}

// --- transport

func streams200(s *suite) {
	var wg sync.WaitGroup
	errs := make(chan error, 200)
	for i := range 200 {
		wg.Go(func() {
			for j := range 20 {
				k := s.key(fmt.Sprintf("%d/%d", i, j))
				if _, err := s.client.Put(s.ctx, k, k); err != nil {
					errs <- err
					return
				}
				g, err := s.client.Get(s.ctx, k)
				if err != nil || len(g.Kvs) != 1 || string(g.Kvs[0].Value) != k {
					errs <- fmt.Errorf("get of %s: %v %v", k, g, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	s.must(<-errs, "one of 200 streams")
}

func connections100(s *suite) {
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for i := range 100 {
		wg.Go(func() {
			c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
			if err == nil {
				_, err = c.Put(s.ctx, s.key(fmt.Sprint(i)), "")
				c.Close()
			}
			if err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	s.must(<-errs, "one of 100 connections")
}

func deadline(s *suite) {
	kv := pb.NewKVClient(s.client.ActiveConnection())
	ctx, cancel := context.WithTimeout(s.ctx, time.Microsecond)
	defer cancel()
	_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	s.check(status.Code(err) == codes.DeadlineExceeded, "a deadline in the past: %v", err)
	// A watch stream must end at its deadline, by the server if the client does not.
	ctx, cancel = context.WithTimeout(s.ctx, 300*time.Millisecond)
	defer cancel()
	stream, err := pb.NewWatchClient(s.client.ActiveConnection()).Watch(ctx)
	s.must(err, "watch")
	started := time.Now()
	_, err = stream.Recv()
	s.check(status.Code(err) == codes.DeadlineExceeded && time.Since(started) < 3*time.Second, "watch with a deadline: %v after %v", err, time.Since(started))
	_, err = s.client.Get(s.ctx, "k")
	s.must(err, "the connection after a deadline")
}

func cancellation(s *suite) {
	for range 300 {
		ctx, cancel := context.WithCancel(s.ctx)
		done := make(chan struct{})
		go func() {
			_, _ = s.client.Get(ctx, s.key(""), clientv3.WithPrefix())
			close(done)
		}()
		cancel()
		<-done
	}
	_, err := s.client.Put(s.ctx, s.key("after"), "")
	s.must(err, "put after 300 cancelled calls")
	ctx, cancel := context.WithCancel(s.ctx)
	c := s.client.Watch(ctx, s.key("k"), clientv3.WithCreatedNotify())
	<-c
	cancel()
	select {
	case _, ok := <-c:
		s.check(!ok, "a cancelled watch still delivers")
	case <-time.After(5 * time.Second):
		s.check(false, "a cancelled watch does not close")
	}
}

func abandonedStreams(s *suite) {
	for range 50 {
		ctx, cancel := context.WithCancel(s.ctx)
		conn := s.client.ActiveConnection()
		w, err := pb.NewWatchClient(conn).Watch(ctx)
		s.must(err, "watch")
		s.must(w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}}), "create")
		l, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
		s.must(err, "keep alive")
		s.must(l.Send(&pb.LeaseKeepAliveRequest{ID: 1}), "send")
		cancel()
	}
	_, err := s.client.Put(s.ctx, s.key("after"), "")
	s.must(err, "put after 100 abandoned streams")
}

func gzipped(s *suite) {
	kv := pb.NewKVClient(s.client.ActiveConnection())
	_, err := kv.Put(s.ctx, &pb.PutRequest{Key: []byte(s.key("k")), Value: bytes.Repeat([]byte("z"), 1000)}, grpc.UseCompressor(gzip.Name))
	if status.Code(err) == codes.Unimplemented {
		// gRPC lets a server refuse; etcd does: it does not register gzip.
		return
	}
	s.must(err, "compressed put")
	g, err := s.client.Get(s.ctx, s.key("k"))
	s.must(err, "get")
	s.check(len(g.Kvs) == 1 && len(g.Kvs[0].Value) == 1000, "compressed value: %v", g)
}

func bigMetadata(s *suite) {
	// Repeated, binary and long metadata goes through HPACK's dynamic table, Huffman code and CONTINUATION frames.
	for i := range 20 {
		ctx := metadata.AppendToOutgoingContext(s.ctx, "x-repeat", "a", "x-repeat", "b", "x-data-bin", string([]byte{0, 255, byte(i)}),
			fmt.Sprintf("x-key-%d", i), strings.Repeat("~", 100*i), "x-long", strings.Repeat("v", 3000))
		_, err := s.client.Get(ctx, "k")
		s.must(err, fmt.Sprintf("get with metadata %d", i))
	}
}

func requireLeader(s *suite) {
	_, err := s.client.Get(clientv3.WithRequireLeader(s.ctx), "k")
	s.must(err, "get with hasleader")
}

func unimplemented(s *suite) {
	err := s.client.ActiveConnection().Invoke(s.ctx, "/etcdserverpb.KV/Unknown", &pb.RangeRequest{}, &pb.RangeResponse{})
	s.check(status.Code(err) == codes.Unimplemented, "unknown method: %v", err)
	err = s.client.ActiveConnection().Invoke(s.ctx, "/no.such.Service/X", &pb.RangeRequest{}, &pb.RangeResponse{})
	s.check(status.Code(err) == codes.Unimplemented, "unknown service: %v", err)
}

func healthService(s *suite) {
	h, err := healthpb.NewHealthClient(s.client.ActiveConnection()).Check(s.ctx, &healthpb.HealthCheckRequest{})
	s.must(err, "grpc.health.v1")
	s.check(h.Status == healthpb.HealthCheckResponse_SERVING, "health: %v", h)
}

// --- maintenance and cluster

func statusFields(s *suite) {
	r, err := s.client.Status(s.ctx, s.endpoint)
	s.must(err, "status")
	s.check(strings.HasPrefix(r.Version, "3.7."), "version %q (kube-apiserver reads it)", r.Version)
	s.check(r.Leader != 0 && r.RaftIndex > 0 && r.RaftTerm > 0 && r.RaftAppliedIndex > 0 && !r.IsLearner, "raft: %v", r)
	s.check(r.DbSize > 0 && r.DbSizeInUse > 0 && r.DbSizeInUse <= r.DbSize && r.DbSizeQuota > 0, "sizes: %v", r)
	s.check(r.StorageVersion == "3.7.0" && len(r.Errors) == 0, "storage version %q, errors %v", r.StorageVersion, r.Errors)
}

func hashKV(s *suite) {
	a, err := s.client.HashKV(s.ctx, s.endpoint, 0)
	s.must(err, "hashkv")
	s.check(a.Hash != 0 && a.HashRevision == a.Header.Revision, "hashkv: %v", a)
	p, err := s.client.Put(s.ctx, s.key("k"), "")
	s.must(err, "put")
	b, err := s.client.HashKV(s.ctx, s.endpoint, p.Header.Revision)
	s.must(err, "hashkv")
	s.check(b.Hash != a.Hash, "a put did not change the hash")
	again, err := s.client.HashKV(s.ctx, s.endpoint, a.HashRevision)
	s.must(err, "hashkv at a past revision")
	s.check(again.Hash == a.Hash, "the hash of revision %d changed from %d to %d", a.HashRevision, a.Hash, again.Hash)
	h, err := pb.NewMaintenanceClient(s.client.ActiveConnection()).Hash(s.ctx, &pb.HashRequest{})
	s.must(err, "hash")
	s.check(h.Hash != 0 && h.Header.Revision == p.Header.Revision, "hash: %v", h)
}

func alarm(s *suite) {
	r, err := s.client.AlarmList(s.ctx)
	s.must(err, "alarm list")
	s.check(len(r.Alarms) == 0, "alarms: %v", r.Alarms)
	_, err = s.client.AlarmDisarm(s.ctx, &clientv3.AlarmMember{})
	s.must(err, "alarm disarm")
}

func snapshot(s *suite) {
	_, err := s.client.Put(s.ctx, s.key("k"), "in the snapshot")
	s.must(err, "put")
	resp, err := s.client.SnapshotWithVersion(s.ctx)
	s.must(err, "snapshot")
	data, err := io.ReadAll(resp.Snapshot)
	s.must(err, "snapshot download")
	// bbolt pages of 4 KiB (or the system's size), then SHA-256 of all before it.
	s.check(len(data) > 32 && (len(data)-32)%512 == 0, "snapshot of %d bytes", len(data))
	sum := sha256.Sum256(data[:len(data)-32])
	s.check(bytes.Equal(sum[:], data[len(data)-32:]), "trailing SHA-256 is wrong")
	s.check(bytes.Contains(data, []byte("in the snapshot")), "an acknowledged put is not in the snapshot")
	// bbolt's magic in the first meta page.
	s.check(bytes.Contains(data[:64], []byte{0xed, 0xda, 0x0c, 0xed}), "no bbolt magic")
}

func defragment(s *suite) {
	_, err := s.client.Defragment(s.ctx, s.endpoint)
	s.must(err, "defragment")
	_, err = s.client.Put(s.ctx, s.key("after"), "")
	s.must(err, "put after defragment")
}

func memberList(s *suite) {
	r, err := s.client.MemberList(s.ctx)
	s.must(err, "member list")
	s.check(len(r.Members) >= 1 && r.Members[0].ID != 0 && r.Members[0].Name != "" && len(r.Members[0].PeerURLs) > 0 && len(r.Members[0].ClientURLs) > 0, "members: %v", r.Members)
	st, err := s.client.Status(s.ctx, s.endpoint)
	s.must(err, "status")
	s.check(st.Header.MemberId == r.Header.MemberId, "member ids differ: %v %v", st.Header, r.Header)
}

func memberErrors(s *suite) {
	_, err := s.client.MemberRemove(s.ctx, 12345)
	s.check(errors.Is(err, rpctypes.ErrMemberNotFound), "remove of nobody: %v", err)
	_, err = s.client.MemberPromote(s.ctx, 12345)
	s.check(errors.Is(err, rpctypes.ErrMemberNotFound), "promote of nobody: %v", err)
	_, err = s.client.MoveLeader(s.ctx, 12345)
	s.check(errors.Is(err, rpctypes.ErrBadLeaderTransferee), "move leader to nobody: %v", err)
}

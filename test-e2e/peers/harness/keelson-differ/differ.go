package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	streamCount       = 4
	watchersPerStream = 20
)

type kindStats struct {
	total, ok int
	errors    map[string]int
}

// differ holds the model of the common history. It is fed from A's answers only, so that a seed replays.
type differ struct {
	sides [2]*side
	rng   *rand.Rand
	index int
	rev   int64
	// compactRev is etcd's compactMainRev: -1 before the first compaction.
	compactRev int64
	// unsettled: a compaction was asked for without waiting, its deletes and its hash may still be in the making.
	unsettled bool
	leases    []int64
	keys      [][]byte

	oracle   *pairStream
	oracleID int64
	streams  []*pairStream
	history  []event

	menu       []menuItem
	stats      map[string]*kindStats
	watchStats watchStats
	ties       int
	verbose    bool
}

type menuItem struct {
	name   string
	weight int
	step   func() error
}

// offline is a differ without servers: the generator alone.
func offline(seed uint64) *differ {
	d := &differ{rng: rand.New(rand.NewPCG(seed, 0x6b65656c736f6e)), rev: 1, compactRev: -1, stats: map[string]*kindStats{}}
	d.makeKeys()
	d.menu = d.fullMenu()
	return d
}

func newDiffer(urlA, urlB string, seed uint64) (*differ, error) {
	d := offline(seed)
	for i, url := range []string{urlA, urlB} {
		s, err := dial(string(rune('A'+i)), url)
		if err != nil {
			return nil, err
		}
		d.sides[i] = s
	}
	return d, d.align()
}

// align checks that both sides have the same history so far, and compacts a used one so that it can be forgotten.
func (d *differ) align() error {
	var revs [2]int64
	for i, s := range d.sides {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		resp, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("x"), CountOnly: true})
		cancel()
		if err != nil {
			return fmt.Errorf("%s does not answer: %w", s.name, err)
		}
		revs[i] = resp.Header.Revision
	}
	if revs[0] != revs[1] {
		return fmt.Errorf("histories differ from the start: A is at revision %d, B at %d (use fresh data directories)", revs[0], revs[1])
	}
	d.rev = revs[0]
	if d.rev > 1 {
		if err := d.both(&request{kind: "align", msg: &pb.CompactionRequest{Revision: d.rev, Physical: true}, send: compactCall(d.rev, true)}); err != nil {
			return err
		}
		d.compactRev = d.rev
	}
	return d.both(&request{kind: "align", msg: &pb.HashKVRequest{}, send: func(ctx context.Context, s *side) (proto.Message, error) {
		return s.maint.HashKV(ctx, &pb.HashKVRequest{})
	}})
}

// both sends r to both sides at once, compares, and feeds the model.
func (d *differ) both(r *request) error {
	_, err := d.ask(r)
	return err
}

func (d *differ) ask(r *request) (answer, error) {
	if d.verbose {
		fmt.Printf("#%d %s %s %s\n", d.index, r.kind, r.note, show(r.msg))
	}
	c := make(chan answer, 1)
	go func() { c <- d.sides[1].do(r) }()
	a := d.sides[0].do(r)
	b := <-c
	reason := ""
	if a.err != nil {
		reason = fmt.Sprintf("code %d: %.100s", status.Code(a.err), status.Convert(a.err).Message())
	} else if h, ok := a.msg.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		d.rev = max(d.rev, h.GetHeader().GetRevision())
	}
	d.count(r.kind, reason)
	return a, d.compareAnswers(r, a, b)
}

func (d *differ) count(kind, failure string) {
	s := d.stats[kind]
	if s == nil {
		s = &kindStats{errors: map[string]int{}}
		d.stats[kind] = s
	}
	s.total++
	if failure == "" {
		s.ok++
	} else {
		s.errors[failure]++
	}
}

func (d *differ) chooseKinds(only, skip string) error {
	wanted, unwanted := list(only), list(skip)
	for _, name := range append(slices.Clone(wanted), unwanted...) {
		if !slices.ContainsFunc(d.menu, func(m menuItem) bool { return m.name == name }) {
			return fmt.Errorf("no kind %q; there are: %s", name, d.menuNames())
		}
	}
	d.menu = slices.DeleteFunc(d.menu, func(m menuItem) bool {
		return (len(wanted) > 0 && !slices.Contains(wanted, m.name)) || slices.Contains(unwanted, m.name)
	})
	return nil
}

func (d *differ) menuNames() (names []string) {
	for _, m := range d.menu {
		names = append(names, m.name)
	}
	return names
}

// run does n steps, then compares what is left.
func (d *differ) run(n, drainEvery int) error {
	total := 0
	watching := false
	for _, m := range d.menu {
		total += m.weight
		watching = watching || m.name == "watch"
	}
	if watching {
		if err := d.startWatching(); err != nil {
			return err
		}
	}
	for d.index = 1; d.index <= n; d.index++ {
		at := d.rng.IntN(total)
		for _, m := range d.menu {
			if at -= m.weight; at < 0 {
				if err := m.step(); err != nil {
					return fmt.Errorf("%s: %w", m.name, err)
				}
				break
			}
		}
		if watching && d.index%drainEvery == 0 {
			if err := d.drain(); err != nil {
				return fmt.Errorf("watch: %w", err)
			}
		}
	}
	d.index = n
	return d.finish(watching)
}

func (d *differ) startWatching() error {
	oracle, err := d.openPair()
	if err != nil {
		return err
	}
	d.oracle = oracle
	all := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true, StartRevision: d.rev + 1}
	wr, err := d.control(oracle, "watch-create", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: all}})
	if err != nil {
		return err
	}
	d.oracleID = wr.WatchId
	oracle.watchers[wr.WatchId] = &watcher{create: all, key: all.Key, end: all.RangeEnd, fromKey: true, firstRev: d.rev + 1}
	for _, ss := range oracle.side {
		ss.mu.Lock()
		ss.lastRev = d.rev
		ss.mu.Unlock()
	}
	for range streamCount {
		p, err := d.openPair()
		if err != nil {
			return err
		}
		d.streams = append(d.streams, p)
	}
	return nil
}

// finish compares the whole keyspace, the hash and the leases, and gives late events the time to show up.
func (d *differ) finish(watching bool) error {
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	if err := d.both(&request{kind: "final", msg: all, send: rangeCall(all)}); err != nil {
		return err
	}
	if err := d.settle(); err != nil {
		return err
	}
	if err := d.both(hashRequest(0)); err != nil {
		return err
	}
	if !watching {
		return nil
	}
	if err := d.drain(); err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond)
	return d.drain()
}

// settle waits for a compaction in the background: asking for one at the same revision, physically, waits for it.
// Before that, HashKV at the compaction revision may answer from the rows or from the stored hash.
func (d *differ) settle() error {
	if !d.unsettled {
		return nil
	}
	d.unsettled = false
	return d.both(&request{kind: "compact", msg: &pb.CompactionRequest{Revision: d.compactRev, Physical: true}, send: compactCall(d.compactRev, true)})
}

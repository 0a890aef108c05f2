package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func dialGRPC(o options) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address(o), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithReadBufferSize(1<<20),
		grpc.WithInitialConnWindowSize(1<<24), grpc.WithInitialWindowSize(1<<23), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
}

// runRangeStream reads the whole prefix by RangeStream, -repeat times; the latencies are of whole streams.
func runRangeStream(o options) (result, error) {
	conn, err := dialGRPC(o)
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	var r result
	var h histogram
	cpu, started, size := cpuSeconds(o.pid), time.Now(), 0
	for range o.repeat {
		one := time.Now()
		stream, err := kv.RangeStream(context.Background(), &pb.RangeRequest{Key: []byte(o.prefix), RangeEnd: prefixEnd(o.prefix)})
		if err != nil {
			return r, err
		}
		var m pb.RangeStreamResponse
		for {
			m.Reset()
			if err := stream.RecvMsg(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return r, err
			}
			r.Chunks++
			r.Keys += uint64(len(m.RangeResponse.Kvs))
			r.Count = m.RangeResponse.Count
			for _, kv := range m.RangeResponse.Kvs {
				size += len(kv.Key) + len(kv.Value)
			}
		}
		h.add(time.Since(one))
	}
	r.Seconds = time.Since(started).Seconds()
	r.latencies(&h)
	r.KeysPerSec, r.MBPerSec = round(float64(r.Keys)/r.Seconds), round(float64(size)/1e6/r.Seconds)
	r.server(o.pid, cpu, r.Keys)
	r.Seconds = round(r.Seconds)
	if r.Count*int64(o.repeat) != int64(r.Keys) {
		return r, fmt.Errorf("count %d, but %d keys in %d streams", r.Count, r.Keys, o.repeat)
	}
	return r, nil
}

// watching is the receiving end of many watch streams on one raw connection: it counts events and decodes none.
type watching struct {
	created, events *atomic.Uint64
	err             error
}

func (w *watching) message(_ *connection, _ *stream, m []byte) {
	events := uint64(0)
	for len(m) > 0 {
		number, kind, n := protowire.ConsumeTag(m)
		if n < 0 {
			w.err = protowire.ParseError(n)
			return
		}
		m = m[n:]
		switch {
		case number == 11:
			events++
		case number == 3:
			w.created.Add(1)
		case number == 4:
			w.err = errors.New("a watcher was cancelled")
		}
		n = protowire.ConsumeFieldValue(number, kind, m)
		if n < 0 {
			w.err = protowire.ParseError(n)
			return
		}
		m = m[n:]
	}
	w.events.Add(events)
}

func (w *watching) done(_ *connection, _ *stream, err error) {
	w.err = fmt.Errorf("a watch stream ended: %w", err)
}

// watchers opens -watchers watchers over -clients connections of -conns-streams streams each.
type watchers struct {
	created, events atomic.Uint64
	failed          atomic.Pointer[error]
}

func openWatchers(o options, key func(i int) *pb.WatchCreateRequest) (*watchers, error) {
	w := &watchers{}
	perConn := (o.watchers + o.clients - 1) / o.clients
	for first := 0; first < o.watchers; first += perConn {
		c, err := dial(address(o), o.tls)
		if err != nil {
			return nil, err
		}
		count := min(perConn, o.watchers-first)
		go func() {
			h := &watching{created: &w.created, events: &w.events}
			if err := subscribe(c, h, o, first, count, key); err != nil {
				w.failed.Store(&err)
			}
		}()
	}
	deadline := time.Now().Add(2 * time.Minute)
	for w.created.Load() < uint64(o.watchers) {
		if err := w.failed.Load(); err != nil {
			return nil, *err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d of %d watchers were created within 2 minutes", w.created.Load(), o.watchers)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return w, nil
}

// subscribe sends the create requests in step with the answers (the server's window is finite), then reads for ever.
func subscribe(c *connection, h *watching, o options, first, count int, key func(i int) *pb.WatchCreateRequest) error {
	var ids []uint32
	sent := 0
	for {
		for sent < count {
			body, err := proto.Marshal(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: key(first + sent)}})
			if err != nil {
				return err
			}
			// A stream's own send window is not tracked: 16 KiB a turn keeps below what every server grants at once.
			if !c.ready(len(body)) || len(c.out) > 16<<10 {
				break
			}
			if len(ids) < o.streams {
				id := c.nextID
				copy(c.open("/etcdserverpb.Watch/Watch", 0, len(body), false), body)
				ids = append(ids, id)
			} else {
				copy(c.data(ids[sent%len(ids)], len(body), false), body)
			}
			sent++
		}
		if err := c.flush(); err != nil {
			return err
		}
		if err := c.turn(h); err != nil {
			return err
		}
		if h.err != nil {
			return h.err
		}
	}
}

// runWatch: every put reaches all watchers; what counts is events delivered, and the server's CPU for each.
func runWatch(o options) (result, error) {
	w, err := openWatchers(o, func(int) *pb.WatchCreateRequest {
		return &pb.WatchCreateRequest{Key: []byte(o.prefix), RangeEnd: prefixEnd(o.prefix), PrevKv: o.prevKV}
	})
	if err != nil {
		return result{}, err
	}
	conn, err := dialGRPC(o)
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	keys, key, value := newKeyspace(o), make([]byte, o.keySize), make([]byte, o.valueSize)

	var h histogram
	started, cpu := time.Now(), cpuSeconds(o.pid)
	puts := uint64(0)
	for time.Since(started) < o.duration {
		keys.write(key, puts)
		at := time.Now()
		if _, err := kv.Put(context.Background(), &pb.PutRequest{Key: key, Value: value}); err != nil {
			return result{}, err
		}
		puts++
		if o.rate > 0 {
			time.Sleep(time.Until(started.Add(time.Duration(puts) * time.Second / time.Duration(o.rate))))
			continue
		}
		// Some puts ahead keep the server busy; waiting bounds what it must buffer.
		for w.events.Load()+8*uint64(o.watchers) < puts*uint64(o.watchers) {
			if err := w.failed.Load(); err != nil {
				return result{}, *err
			}
			time.Sleep(100 * time.Microsecond)
		}
		h.add(time.Since(at))
	}
	if err := w.await(puts * uint64(o.watchers)); err != nil {
		return result{}, err
	}
	r := result{Events: w.events.Load(), Watchers: o.watchers, Seconds: time.Since(started).Seconds()}
	r.latencies(&h)
	r.Requests, r.PerSecond = puts, round(float64(puts)/r.Seconds)
	r.EventsPerSec = round(float64(r.Events) / r.Seconds)
	r.server(o.pid, cpu, puts)
	if r.ServerCPU > 0 {
		r.EventsPerCPU = round(float64(r.Events) / r.ServerCPU)
	}
	r.Seconds = round(r.Seconds)
	return r, nil
}

func (w *watchers) await(events uint64) error {
	deadline := time.Now().Add(time.Minute)
	for w.events.Load() < events {
		if err := w.failed.Load(); err != nil {
			return *err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d events a minute after the last put", w.events.Load(), events)
		}
		time.Sleep(time.Millisecond)
	}
	if w.events.Load() > events {
		return fmt.Errorf("%d events, %d were due", w.events.Load(), events)
	}
	return nil
}

// runIdleWatch: what a watcher costs that nobody writes to. Each has a key of its own.
func runIdleWatch(o options) (result, error) {
	before, _ := memory(o.pid)
	started, cpu := time.Now(), cpuSeconds(o.pid)
	keys := newKeyspace(o)
	var mu sync.Mutex
	w, err := openWatchers(o, func(i int) *pb.WatchCreateRequest {
		mu.Lock()
		defer mu.Unlock()
		key := make([]byte, o.keySize)
		keys.write(key, uint64(i))
		return &pb.WatchCreateRequest{Key: key}
	})
	if err != nil {
		return result{}, err
	}
	created := time.Since(started)
	time.Sleep(o.duration)
	if err := w.failed.Load(); err != nil {
		return result{}, *err
	}
	after, _ := memory(o.pid)
	r := result{Watchers: o.watchers, Seconds: round(created.Seconds()), BytesWatcher: round((after - before) * (1 << 20) / float64(o.watchers))}
	r.server(o.pid, cpu, uint64(o.watchers))
	return r, nil
}

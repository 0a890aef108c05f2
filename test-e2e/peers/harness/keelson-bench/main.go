// keelson-bench loads one server and prints one JSON line of what it measured.
// Modes: put, get, onekey (one client, one put at a time), mixed (puts and gets at fixed rates), page (a listing page by page),
// rangestream, watch, idle-watch.
// It compares nothing: bench/run.ts runs it against etcd and keelson in turn.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

type options struct {
	mode, endpoint, prefix, order, pageStart, method string
	clients, streams, keySize, valueSize             int
	keys, total, limit, watchers, repeat             int
	duration, warmup                                 time.Duration
	pid, procs                                       int
	serializable, tls, prevKV                        bool
	rate, getRate                                    int
}

// result is the JSON line. Fields without meaning for a mode are left out.
type result struct {
	Mode      string  `json:"mode"`
	Requests  uint64  `json:"requests,omitempty"`
	Errors    uint64  `json:"errors"`
	Error     string  `json:"first_error,omitempty"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second,omitempty"`
	Mean      float64 `json:"mean_ms,omitempty"`
	P50       float64 `json:"p50_ms,omitempty"`
	P90       float64 `json:"p90_ms,omitempty"`
	P99       float64 `json:"p99_ms,omitempty"`
	P999      float64 `json:"p999_ms,omitempty"`
	Max       float64 `json:"max_ms,omitempty"`
	MBPerSec  float64 `json:"response_mb_per_second,omitempty"`

	PutP50  float64 `json:"put_p50_ms,omitempty"`
	PutP99  float64 `json:"put_p99_ms,omitempty"`
	PutP999 float64 `json:"put_p999_ms,omitempty"`
	PutMax  float64 `json:"put_max_ms,omitempty"`
	GetP50  float64 `json:"get_p50_ms,omitempty"`
	GetP99  float64 `json:"get_p99_ms,omitempty"`
	GetP999 float64 `json:"get_p999_ms,omitempty"`
	GetMax  float64 `json:"get_max_ms,omitempty"`

	Keys         uint64  `json:"keys,omitempty"`
	KeysPerSec   float64 `json:"keys_per_second,omitempty"`
	Count        int64   `json:"count,omitempty"`
	Chunks       int     `json:"chunks,omitempty"`
	Events       uint64  `json:"events,omitempty"`
	EventsPerSec float64 `json:"events_per_second,omitempty"`
	EventsPerCPU float64 `json:"events_per_server_cpu_second,omitempty"`
	Watchers     int     `json:"watchers,omitempty"`
	BytesWatcher float64 `json:"server_bytes_per_watcher,omitempty"`

	ServerCPU     float64 `json:"server_cpu_seconds,omitempty"`
	ServerCPUEach float64 `json:"server_cpu_us_per_request,omitempty"`
	ClientCPU     float64 `json:"client_cpu_seconds,omitempty"`
	RSSAnonBefore float64 `json:"server_rss_anon_before_mb,omitempty"`
	RSSAnonPeak   float64 `json:"server_rss_anon_peak_mb,omitempty"`
	RSSAnon       float64 `json:"server_rss_anon_mb,omitempty"`
	RSSFile       float64 `json:"server_rss_file_mb,omitempty"`
}

func main() {
	var o options
	flag.StringVar(&o.mode, "mode", "put", "put, get, onekey, mixed, page, rangestream, watch, idle-watch")
	flag.StringVar(&o.endpoint, "endpoint", "127.0.0.1:2379", "host:port")
	flag.IntVar(&o.clients, "clients", 20, "connections")
	flag.IntVar(&o.streams, "conns-streams", 50, "concurrent streams on a connection")
	flag.IntVar(&o.keySize, "key-size", 36, "bytes of a key")
	flag.IntVar(&o.valueSize, "val-size", 256, "bytes of a value")
	flag.IntVar(&o.keys, "keys", 1_000_000, "distinct keys")
	flag.IntVar(&o.total, "total", 0, "stop after this many requests (0: by -duration)")
	flag.DurationVar(&o.duration, "duration", 10*time.Second, "how long to load")
	flag.DurationVar(&o.warmup, "warmup", 0, "load this long before measuring")
	flag.StringVar(&o.prefix, "prefix", "bench/", "prefix of all keys")
	flag.StringVar(&o.order, "order", "random", "order of the keys: random (a permutation), uniform (drawn each time) or sequential")
	flag.IntVar(&o.limit, "limit", 500, "page: keys of a page")
	flag.StringVar(&o.pageStart, "page-start", "walk", "page: walk (Kubernetes' listing, page after page), random or first")
	flag.IntVar(&o.watchers, "watchers", 1000, "watch, idle-watch: watchers")
	flag.BoolVar(&o.prevKV, "prev-kv", false, "watch: ask for prev_kv")
	flag.IntVar(&o.rate, "rate", 0, "watch, mixed: puts a second (watch 0: the next when all watchers have the last)")
	flag.IntVar(&o.getRate, "get-rate", 0, "mixed: gets a second")
	flag.IntVar(&o.repeat, "repeat", 3, "rangestream: how often")
	flag.BoolVar(&o.serializable, "serializable", false, "get, page: serializable instead of linearizable")
	flag.StringVar(&o.method, "method", "", "put: call this method with the same bytes (an echo server shows what the generator itself can do)")
	flag.BoolVar(&o.tls, "tls", false, "TLS, without verifying the server")
	flag.IntVar(&o.pid, "pid", 0, "the server's process id: its CPU and memory are reported")
	flag.IntVar(&o.procs, "procs", 1, "threads of this client (GOMAXPROCS)")
	flag.Parse()
	runtime.GOMAXPROCS(o.procs)

	modes := map[string]func(options) (result, error){"put": runUnary, "get": runUnary, "onekey": runUnary, "page": runUnary, "mixed": runMixed,
		"rangestream": runRangeStream, "watch": runWatch, "idle-watch": runIdleWatch}
	run := modes[o.mode]
	if run == nil || o.keySize < len(o.prefix)+10 {
		fmt.Fprintf(os.Stderr, "keelson-bench: unknown -mode %q, or -key-size below the prefix and ten digits\n", o.mode)
		os.Exit(2)
	}
	before, _ := memory(o.pid)
	peak, stop := samplePeak(o.pid)
	r, err := run(o)
	stop.Store(true)
	if err != nil {
		fmt.Fprintln(os.Stderr, "keelson-bench:", err)
		os.Exit(1)
	}
	r.Mode = o.mode
	r.RSSAnonBefore, r.RSSAnonPeak = before, math.Float64frombits(peak.Load())
	r.RSSAnon, r.RSSFile = memory(o.pid)
	r.ClientCPU = round(cpuSeconds(os.Getpid()))
	_ = json.NewEncoder(os.Stdout).Encode(r)
	if r.Errors > 0 {
		os.Exit(1)
	}
}

// samplePeak watches the server's anonymous memory: the kernel keeps a peak of the whole RSS only.
func samplePeak(pid int) (*atomic.Uint64, *atomic.Bool) {
	peak, stop := &atomic.Uint64{}, &atomic.Bool{}
	if pid != 0 {
		go func() {
			for !stop.Load() {
				anon, _ := memory(pid)
				if anon > math.Float64frombits(peak.Load()) {
					peak.Store(math.Float64bits(anon))
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
	}
	return peak, stop
}

func (r *result) latencies(h *histogram) {
	r.Requests = h.total
	r.PerSecond = round(float64(h.total) / r.Seconds)
	if h.total > 0 {
		r.Mean = round(float64(h.sum) / float64(h.total) / 1e6)
	}
	r.P50, r.P90, r.P99, r.P999, r.Max = h.ms(0.5), h.ms(0.9), h.ms(0.99), h.ms(0.999), round(float64(h.max)/1e6)
}

func (r *result) server(pid int, cpuBefore float64, requests uint64) {
	if pid == 0 {
		return
	}
	used := cpuSeconds(pid) - cpuBefore
	r.ServerCPU = round(used)
	if requests > 0 {
		r.ServerCPUEach = round(used / float64(requests) * 1e6)
	}
}

// round to four significant digits: the rest is noise.
func round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// keyspace gives key number i of -keys: the prefix, ten digits, and filler up to the size.
type keyspace struct {
	o      options
	stride uint64
}

func newKeyspace(o options) keyspace {
	k := keyspace{o: o, stride: 1}
	if o.order == "random" {
		// A stride that shares no factor with the number of keys visits each once, in no useful order.
		k.stride = uint64(float64(o.keys)*0.6180339887) | 1
		for gcd(k.stride, uint64(o.keys)) != 1 {
			k.stride += 2
		}
	}
	return k
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (k keyspace) write(dst []byte, sequence uint64) {
	n := copy(dst, k.o.prefix)
	if k.o.order == "uniform" {
		sequence = scramble(sequence)
	}
	digits := sequence % uint64(k.o.keys) * k.stride % uint64(k.o.keys)
	for i := 9; i >= 0; i-- {
		dst[n+i] = byte('0' + digits%10)
		digits /= 10
	}
	for i := n + 10; i < len(dst); i++ {
		dst[i] = 'k'
	}
}

// scramble is splitmix64: as good as random, and the same for every run.
func scramble(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

func prefixEnd(p string) []byte {
	end := []byte(p)
	end[len(end)-1]++
	return end
}

func address(o options) string {
	return strings.TrimPrefix(strings.TrimPrefix(o.endpoint, "http://"), "https://")
}

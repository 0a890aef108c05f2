// keelson-differ runs one seeded random sequence of requests against two servers and compares every answer
// field by field. A is the reference (etcd), B is the one under test.
// It is not a load generator: one request is in flight at a time, so that both histories stay identical.
package main

import (
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"
)

func main() {
	a := flag.String("a", "http://127.0.0.1:2379", "reference server (etcd)")
	b := flag.String("b", "http://127.0.0.1:3379", "server under test")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the sequence")
	n := flag.Int("n", 20000, "number of requests")
	drainEvery := flag.Int("drain", 200, "compare all watchers after this many requests")
	kinds := flag.String("kinds", "", "only these kinds of request, comma separated (default: all)")
	skip := flag.String("skip", "", "all but these kinds, comma separated")
	verbose := flag.Bool("v", false, "print every request")
	flag.Parse()

	d, err := newDiffer(*a, *b, *seed)
	if err != nil {
		fmt.Fprintln(os.Stderr, "keelson-differ:", err)
		os.Exit(2)
	}
	d.verbose = *verbose
	if err := d.chooseKinds(*kinds, *skip); err != nil {
		fmt.Fprintln(os.Stderr, "keelson-differ:", err)
		os.Exit(2)
	}
	started := time.Now()
	fmt.Printf("seed=%d a=%s b=%s revision=%d\n", *seed, *a, *b, d.rev)

	err = d.run(*n, *drainEvery)
	d.printStats()
	if err != nil {
		fmt.Printf("\nDIFFERENCE seed=%d request=%d\n%v\n", *seed, d.index, err)
		fmt.Printf("requests=%d differences=1 seed=%d\n", d.index, *seed)
		os.Exit(1)
	}
	fmt.Printf("requests=%d differences=0 seed=%d revision=%d seconds=%.1f\n", d.index, *seed, d.rev, time.Since(started).Seconds())
}

// printStats shows how often each kind ran and which errors it met: a path nobody took was not compared.
func (d *differ) printStats() {
	var names []string
	for name := range d.stats {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		s := d.stats[name]
		fmt.Printf("%-18s %7d  ok %7d\n", name, s.total, s.ok)
		var errs []string
		for e := range s.errors {
			errs = append(errs, e)
		}
		sort.Strings(errs)
		for _, e := range errs {
			fmt.Printf("    %7d  %s\n", s.errors[e], e)
		}
	}
	w := d.watchStats
	fmt.Printf("watch: events compared %d, watchers %d (compacted %d), drains %d; groups of ties in sorted ranges %d\n",
		w.events, w.watchers, w.compacted, w.drains, d.ties)
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

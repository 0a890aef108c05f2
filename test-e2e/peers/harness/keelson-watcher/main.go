// keelson-watcher prints every event of a prefix as one JSON line, through clientv3's own resuming watch.
// It judges nothing: a test kills and restarts the server and then reads the lines for gaps and doubles.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

type line struct {
	Type        string `json:"type"`
	Key         string `json:"key"`
	ModRevision int64  `json:"mod_revision"`
	Version     int64  `json:"version"`
}

func main() {
	endpoint := flag.String("endpoint", "127.0.0.1:2379", "endpoints, comma separated")
	prefix := flag.String("prefix", "", "watch keys with this prefix (empty: all)")
	rev := flag.Int64("rev", 1, "first revision to deliver (0: from now)")
	flag.Parse()

	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(*endpoint, ","), DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second})
	if err != nil {
		fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for resp := range client.Watch(ctx, *prefix, clientv3.WithPrefix(), clientv3.WithRev(*rev), clientv3.WithCreatedNotify()) {
		if resp.Created {
			fmt.Fprintf(os.Stderr, "keelson-watcher: watching from revision %d\n", *rev)
		}
		// A cancelled watch never comes back: the test must see that, not wait for its timeout.
		if err := resp.Err(); err != nil {
			if ctx.Err() != nil || errors.Is(err, context.Canceled) {
				break
			}
			fatal(err)
		}
		for _, e := range resp.Events {
			if err := out.Encode(line{e.Type.String(), string(e.Kv.Key), e.Kv.ModRevision, e.Kv.Version}); err != nil {
				fatal(err)
			}
		}
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "keelson-watcher:", err)
	os.Exit(1)
}

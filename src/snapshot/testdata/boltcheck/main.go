// Boltcheck is the real-bbolt half of the snapshot folder's peer test.
//
//	boltcheck dump FILE          prints every entry as hex and runs tx.Check
//	boltcheck make FILE SEED N   makes a database by random puts and deletes, so that it has free pages
//	boltcheck edit FILE SEED N   deletes and puts in an existing file, then checks it
//
// dump prints one line an entry: the path of bucket names, the key, the value ("-" for a bucket), in hex, with "/" between
// bucket names; then "check ok" or one "check error" line a fault.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"

	bolt "go.etcd.io/bbolt"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "boltcheck:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 2 && args[0] == "dump" {
		return dump(args[1])
	}
	if len(args) == 4 && (args[0] == "make" || args[0] == "edit") {
		seed, err := strconv.ParseInt(args[2], 10, 64)
		if err != nil {
			return err
		}
		count, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		if args[0] == "make" {
			return build(args[1], rand.New(rand.NewSource(seed)), count)
		}
		return edit(args[1], rand.New(rand.NewSource(seed)), count)
	}
	return fmt.Errorf("usage: boltcheck dump FILE | make FILE SEED N | edit FILE SEED N")
}

func dump(path string) error {
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	return db.View(func(tx *bolt.Tx) error {
		err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			fmt.Fprintf(out, " %x -\n", name)
			return dumpBucket(out, []string{hex.EncodeToString(name)}, b)
		})
		if err != nil {
			return err
		}
		printCheck(out, tx)
		return nil
	})
}

func dumpBucket(out *bufio.Writer, path []string, b *bolt.Bucket) error {
	joined := strings.Join(path, "/")
	return b.ForEach(func(k, v []byte) error {
		if child := b.Bucket(k); v == nil && child != nil {
			fmt.Fprintf(out, "%s %x -\n", joined, k)
			return dumpBucket(out, append(path[:len(path):len(path)], hex.EncodeToString(k)), child)
		}
		fmt.Fprintf(out, "%s %x %x\n", joined, k, v)
		return nil
	})
}

func printCheck(out *bufio.Writer, tx *bolt.Tx) {
	faults := 0
	for err := range tx.Check() {
		faults++
		fmt.Fprintln(out, "check error", err)
	}
	if faults == 0 {
		fmt.Fprintln(out, "check ok")
	}
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	r.Read(b)
	return b
}

func randomValue(r *rand.Rand) []byte {
	switch r.Intn(40) {
	case 0:
		return nil
	case 1:
		return randomBytes(r, 4000+r.Intn(20000))
	default:
		return randomBytes(r, r.Intn(400))
	}
}

// bucketsOf makes (or finds) the buckets that all three commands work on; nested and tiny ones among them.
func bucketsOf(tx *bolt.Tx) ([]*bolt.Bucket, error) {
	var buckets []*bolt.Bucket
	for _, name := range []string{"alpha", "empty", "key", "tiny"} {
		b, err := tx.CreateBucketIfNotExists([]byte(name))
		if err != nil {
			return nil, err
		}
		if name == "alpha" || name == "key" {
			buckets = append(buckets, b)
		}
		if name == "tiny" {
			if err := b.Put([]byte("one"), []byte("1")); err != nil {
				return nil, err
			}
			nested, err := b.CreateBucketIfNotExists([]byte("nested"))
			if err != nil {
				return nil, err
			}
			if _, err := nested.CreateBucketIfNotExists([]byte("empty")); err != nil {
				return nil, err
			}
			buckets = append(buckets, nested)
		}
	}
	return buckets, nil
}

func build(path string, r *rand.Rand, count int) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		return err
	}
	defer db.Close()
	var keys [][]byte
	for done := 0; done < count; {
		err := db.Update(func(tx *bolt.Tx) error {
			buckets, err := bucketsOf(tx)
			if err != nil {
				return err
			}
			for i := 0; i < 500 && done < count; i++ {
				done++
				b := buckets[r.Intn(len(buckets))]
				if len(keys) > 0 && r.Intn(3) == 0 {
					if err := b.Delete(keys[r.Intn(len(keys))]); err != nil {
						return err
					}
					continue
				}
				k := randomBytes(r, 2+r.Intn(40))
				keys = append(keys, k)
				if err := b.Put(k, randomValue(r)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// edit deletes most entries of every top-level bucket of any file and puts some, as etcd's compaction does to a restored file.
func edit(path string, r *rand.Rand, count int) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, NoFreelistSync: r.Intn(2) == 0})
	if err != nil {
		return err
	}
	defer db.Close()
	for round := 0; round < 4; round++ {
		err = db.Update(func(tx *bolt.Tx) error {
			return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
				var doomed [][]byte
				err := b.ForEach(func(k, v []byte) error {
					if v != nil && r.Intn(3) > 0 {
						doomed = append(doomed, append([]byte(nil), k...))
					}
					return nil
				})
				if err != nil {
					return err
				}
				for _, k := range doomed {
					if err := b.Delete(k); err != nil {
						return err
					}
				}
				for i := 0; i < count/4; i++ {
					if err := b.Put(randomBytes(r, 2+r.Intn(40)), randomValue(r)); err != nil {
						return err
					}
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return db.View(func(tx *bolt.Tx) error {
		out := bufio.NewWriter(os.Stdout)
		defer out.Flush()
		printCheck(out, tx)
		return nil
	})
}

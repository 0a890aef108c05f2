// The two tables of HPACK: the static one (RFC 7541, appendix A) and the dynamic one (2.3.2, 4), the latter for either
// direction. Indexes are the wire's: 1..61 static, 62 the newest dynamic entry.
//
// Worked example: capacity 4096, insert a, then b: 62 is b, 63 is a. An entry larger than the capacity empties the table
// and is not an error (4.4).

import { assert } from '../base/assert.ts';
import { HeaderField } from './header-field.ts';

const staticEntries: readonly (readonly [string, string])[] = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  [':status', '200'],
  [':status', '204'],
  [':status', '206'],
  [':status', '304'],
  [':status', '400'],
  [':status', '404'],
  [':status', '500'],
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ['accept-language', ''],
  ['accept-ranges', ''],
  ['accept', ''],
  ['access-control-allow-origin', ''],
  ['age', ''],
  ['allow', ''],
  ['authorization', ''],
  ['cache-control', ''],
  ['content-disposition', ''],
  ['content-encoding', ''],
  ['content-language', ''],
  ['content-length', ''],
  ['content-location', ''],
  ['content-range', ''],
  ['content-type', ''],
  ['cookie', ''],
  ['date', ''],
  ['etag', ''],
  ['expect', ''],
  ['expires', ''],
  ['from', ''],
  ['host', ''],
  ['if-match', ''],
  ['if-modified-since', ''],
  ['if-none-match', ''],
  ['if-range', ''],
  ['if-unmodified-since', ''],
  ['last-modified', ''],
  ['link', ''],
  ['location', ''],
  ['max-forwards', ''],
  ['proxy-authenticate', ''],
  ['proxy-authorization', ''],
  ['range', ''],
  ['referer', ''],
  ['refresh', ''],
  ['retry-after', ''],
  ['server', ''],
  ['set-cookie', ''],
  ['strict-transport-security', ''],
  ['transfer-encoding', ''],
  ['user-agent', ''],
  ['vary', ''],
  ['via', ''],
  ['www-authenticate', ''],
];

export const staticCount: number = 61;
assert(staticEntries.length === staticCount, 'the static table has 61 entries');

/** Index 0 is no field (RFC 7541, 6.1): a placeholder so that the wire's index addresses the array. */
export const staticTable: readonly HeaderField[] = [
  new HeaderField('', ''),
  ...staticEntries.map(([name, value]) => new HeaderField(name, value)),
];

/** First static index of a name, for literals that refer to a name. */
export const staticNames: ReadonlyMap<string, number> = new Map(
  staticEntries.map(([name], i): [string, number] => [name, i + 1]).reverse(),
);

export class DynamicTable {
  /** Ring: the newest entry is at `newest`, older ones behind it. Length is a power of two. */
  private ring: (HeaderField | null)[] = new Array<HeaderField | null>(16).fill(null);
  private newest = 0;
  count = 0;
  /** Sum of the entries' sizes; never above `capacity`. */
  bytes = 0;
  capacity: number;
  /** Changes whenever an index may mean another field than before. */
  generation = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** The entry at a wire index of 62 or more, or null beyond the table's end. */
  get(index: number): HeaderField | null {
    const age = index - staticCount - 1;
    if (age < 0 || age >= this.count) return null;
    return this.ring[(this.newest - age) & (this.ring.length - 1)]!;
  }

  insert(field: HeaderField): void {
    this.generation += 1;
    this.evict(this.capacity - field.bytes);
    if (field.bytes > this.capacity) return;
    if (this.count === this.ring.length) this.grow();
    this.newest = (this.newest + 1) & (this.ring.length - 1);
    this.ring[this.newest] = field;
    this.count += 1;
    this.bytes += field.bytes;
    assert(this.bytes <= this.capacity, 'the dynamic table fits its capacity');
  }

  resize(capacity: number): void {
    if (capacity !== this.capacity) this.generation += 1;
    this.capacity = capacity;
    this.evict(capacity);
  }

  /** Wire index of the entry with this name and value, or 0. */
  find(name: string, value: string): number {
    for (let age = 0; age < this.count; age += 1) {
      const field = this.ring[(this.newest - age) & (this.ring.length - 1)]!;
      if (field.name === name && field.value === value) return staticCount + 1 + age;
    }
    return 0;
  }

  private evict(bytesMax: number): void {
    while (this.count > 0 && this.bytes > bytesMax) {
      const at = (this.newest - this.count + 1) & (this.ring.length - 1);
      this.bytes -= this.ring[at]!.bytes;
      this.ring[at] = null;
      this.count -= 1;
    }
  }

  private grow(): void {
    const bigger = new Array<HeaderField | null>(this.ring.length * 2).fill(null);
    for (let i = 0; i < this.count; i += 1) {
      bigger[i] = this.ring[(this.newest - this.count + 1 + i) & (this.ring.length - 1)]!;
    }
    this.ring = bigger;
    this.newest = this.count - 1;
  }
}

// Header blocks of one connection in, checked heads out: HPACK's table, the cache of settled blocks, and validation.

import type { Http2Limits } from '../connection-limits.ts';
import { HeaderBlockCache } from './header-block-cache.ts';
import { HpackDecoder } from './hpack-decoder.ts';
import { type RequestHead, RequestHeadBuilder, TrailerSink } from './request-head.ts';

export class RequestHeadDecoder {
  private readonly decoder: HpackDecoder;
  private readonly builder: RequestHeadBuilder;
  private readonly cache: HeaderBlockCache = new HeaderBlockCache();
  private readonly cachedBlockBytesMax: number;

  constructor(limits: Http2Limits) {
    this.decoder = new HpackDecoder(limits.headerTableBytes);
    this.builder = new RequestHeadBuilder(limits.headerListBytesMax);
    this.cachedBlockBytesMax = limits.cachedBlockBytesMax;
  }

  /** The head of a request, possibly malformed; null is a COMPRESSION_ERROR. */
  request(buffer: Buffer, start: number, end: number): RequestHead | null {
    const generation = this.decoder.table.generation;
    const known = this.cache.get(generation, buffer, start, end);
    if (known !== null) return known;
    if (!this.decoder.decode(buffer, start, end, this.builder)) return null;
    const head = this.builder.finish();
    const settled = generation === this.decoder.table.generation;
    if (settled && end > start && end - start <= this.cachedBlockBytesMax) {
      this.cache.put(generation, buffer, start, end, head);
    }
    return head;
  }

  /** Whether the fields behind a body are valid; null is a COMPRESSION_ERROR. They are decoded for the table's sake. */
  trailers(buffer: Buffer, start: number, end: number): boolean | null {
    const sink = new TrailerSink();
    return this.decoder.decode(buffer, start, end, sink) ? !sink.malformed : null;
  }
}

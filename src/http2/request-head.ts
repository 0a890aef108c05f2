// A decoded and checked request: pseudo-headers and fields by RFC 9113, 8.1 to 8.3. Malformed requests are marked, not
// refused here: the connection resets their stream. One head may serve many requests (header-block-cache.ts), so it is
// never changed after it is built, but for `application`, which is derived from it.

import type { HeaderField } from './header-field.ts';
import { FieldKind } from './header-field.ts';
import type { FieldSink } from './hpack-decoder.ts';

export class RequestHead {
  method = '';
  scheme = '';
  authority = '';
  path = '';
  contentType = '';
  /** -1 when there is no content-length. */
  contentLength = -1;
  /** The regular fields in their order. */
  readonly fields: HeaderField[] = [];
  /** Breaks a rule of RFC 9113, 8.2 or 8.3: the stream must be reset with PROTOCOL_ERROR. */
  malformed = false;
  /** The list is larger than we take; `fields` is not complete. */
  tooLarge = false;
  /** A slot for what the layer above works out of a head once (a route, a timeout). */
  application: unknown = null;

  /** First value of a regular field, or undefined. */
  value(name: string): string | undefined {
    for (const field of this.fields) if (field.name === name) return field.value;
    return undefined;
  }
}

// Which pseudo-headers came, as bits of FieldKind.
const requiredPseudo = (1 << FieldKind.method) | (1 << FieldKind.scheme) | (1 << FieldKind.path);
const connectPseudo = (1 << FieldKind.method) | (1 << FieldKind.authority);

export class RequestHeadBuilder implements FieldSink {
  private readonly listBytesMax: number;
  private head = new RequestHead();
  private listBytes = 0;
  private pseudo = 0;

  constructor(listBytesMax: number) {
    this.listBytesMax = listBytesMax;
  }

  field(field: HeaderField): void {
    const head = this.head;
    // An HPACK bomb ends here: what exceeds the list is counted, not kept. The decoder goes on, for its table.
    this.listBytes += field.bytes;
    if (this.listBytes > this.listBytesMax) {
      head.tooLarge = true;
      return;
    }
    if (!field.valid) head.malformed = true;
    if (field.kind >= FieldKind.method && field.kind <= FieldKind.pseudoUnknown) {
      this.pseudoField(head, field);
      return;
    }
    if (field.kind === FieldKind.connectionSpecific) head.malformed = true;
    else if (field.kind === FieldKind.te) head.malformed ||= field.value !== 'trailers';
    else if (field.kind === FieldKind.contentLength) this.contentLength(head, field.value);
    else if (field.kind === FieldKind.contentType && head.contentType === '') head.contentType = field.value;
    head.fields.push(field);
  }

  /** The head of the fields since the last call. */
  finish(): RequestHead {
    const head = this.head;
    const connect = head.method === 'CONNECT';
    if (connect ? this.pseudo !== connectPseudo : (this.pseudo & requiredPseudo) !== requiredPseudo) {
      head.malformed = true;
    }
    if (!connect && head.path === '') head.malformed = true;
    this.reset();
    return head;
  }

  reset(): void {
    this.head = new RequestHead();
    this.listBytes = 0;
    this.pseudo = 0;
  }

  private pseudoField(head: RequestHead, field: HeaderField): void {
    const bit = 1 << field.kind;
    // Unknown, repeated, or behind a regular field.
    if (field.kind === FieldKind.pseudoUnknown || (this.pseudo & bit) !== 0 || head.fields.length > 0) {
      head.malformed = true;
      return;
    }
    this.pseudo |= bit;
    if (field.kind === FieldKind.method) head.method = field.value;
    else if (field.kind === FieldKind.scheme) head.scheme = field.value;
    else if (field.kind === FieldKind.authority) head.authority = field.value;
    else head.path = field.value;
  }

  private contentLength(head: RequestHead, value: string): void {
    const length = /^[0-9]{1,15}$/.test(value) ? Number(value) : -1;
    if (length < 0 || (head.contentLength >= 0 && head.contentLength !== length)) head.malformed = true;
    head.contentLength = length;
  }
}

/** Checks the fields behind a body (RFC 9113, 8.1): no pseudo-headers, nothing forbidden. Their content is not kept. */
export class TrailerSink implements FieldSink {
  malformed = false;

  field(field: HeaderField): void {
    const pseudo = field.kind >= FieldKind.method && field.kind <= FieldKind.pseudoUnknown;
    if (!field.valid || pseudo || field.kind === FieldKind.connectionSpecific) this.malformed = true;
  }
}

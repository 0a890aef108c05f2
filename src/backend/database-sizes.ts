// How large the database is, for metrics, Status and the quota: the flusher's last word, what is not flushed yet, and the
// exception for a defragmentation.

import type { EnvironmentSizes } from '../io/table.ts';
import type { BackendSizes } from './backend-options.ts';

export class DatabaseSizes {
  private allocatedBytes: number;
  private freeBytes: number;
  private defrags = 0;
  /** Allocated when the first of those defragmentations was asked for. */
  private allocatedBefore = 0;

  constructor(sizes: EnvironmentSizes) {
    this.allocatedBytes = sizes.allocatedBytes;
    this.freeBytes = sizes.freeBytes;
  }

  committed(sizes: EnvironmentSizes): void {
    this.allocatedBytes = sizes.allocatedBytes;
    this.freeBytes = sizes.freeBytes;
  }

  defragBegun(): void {
    if (this.defrags++ === 0) this.allocatedBefore = this.allocatedBytes;
  }

  defragEnded(): void {
    this.defrags--;
  }

  /**
   * While a defragmentation copies, pages that are freed cannot be used again, and the file that it will replace grows. That growth is
   * not counted: it would raise the alarm of the quota by the very thing that gives space back.
   */
  of(backlogBytes: number): BackendSizes {
    const used = this.allocatedBytes - this.freeBytes;
    const allocated =
      this.defrags === 0 ? this.allocatedBytes : Math.min(this.allocatedBytes, Math.max(this.allocatedBefore, used));
    return { totalBytes: allocated + backlogBytes, inUseBytes: used + backlogBytes };
  }
}

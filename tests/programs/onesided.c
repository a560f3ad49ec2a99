/* onesided STEPS: put, get, accumulate, fetch-and-op and compare-and-swap with fence, lock and post/start synchronisation. */
#include "judge.h"
#include <mpi.h>

static int me, ranks;

static void fenced(MPI_Win window, const long *memory, long k) {
    MPI_Win_fence(0, window);
    for (int to = 0; to < ranks; to++) MPI_Accumulate(&k, 1, MPI_LONG, to, me, 1, MPI_LONG, MPI_SUM, window);
    MPI_Win_fence(0, window);
    for (int from = 0; from < ranks; from++)
        if (memory[from] != k * (k + 1) / 2) WRONG("rank %d step %ld: window has %ld of %d", me, k, memory[from], from);
}

static void locked(MPI_Win window, long k) {
    long one = 1, before, mine = k * 1000 + me, back = -1;
    int right = (me + 1) % ranks;
    MPI_Win_lock(MPI_LOCK_EXCLUSIVE, right, 0, window);
    MPI_Put(&mine, 1, MPI_LONG, right, ranks + me, 1, MPI_LONG, window);
    MPI_Win_flush(right, window);
    MPI_Get(&back, 1, MPI_LONG, right, ranks + me, 1, MPI_LONG, window);
    MPI_Win_unlock(right, window);
    if (back != mine) WRONG("rank %d step %ld: put %ld, got %ld", me, k, mine, back);
    MPI_Win_lock(MPI_LOCK_SHARED, 0, 0, window);
    MPI_Fetch_and_op(&one, &before, MPI_LONG, 0, 2 * ranks, MPI_SUM, window);
    MPI_Win_unlock(0, window);
    if (before < (k - 1) * ranks || before >= k * ranks) WRONG("rank %d step %ld: ticket %ld", me, k, before);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    long steps = argument(argc, argv, 1, 150), *memory;
    MPI_Win window;
    MPI_Win_allocate(sizeof(long) * (2 * ranks + 1), sizeof(long), MPI_INFO_NULL, MPI_COMM_WORLD, &memory, &window);
    memset(memory, 0, sizeof(long) * (2 * ranks + 1));
    MPI_Win_fence(0, window);
    uint64_t hash = 1, all = 0;
    for (long k = 1; k <= steps; k++) {
        fenced(window, memory, k);
        locked(window, k);
        MPI_Win_fence(0, window);
        for (int i = 0; i < ranks; i++) hash = mix(hash ^ (uint64_t)memory[i] ^ (uint64_t)memory[ranks + i] << 20);
        MPI_Reduce(&hash, &all, 1, MPI_UINT64_T, MPI_BXOR, 0, MPI_COMM_WORLD);
        usleep(10000);
        if (me == 0) step(k, all);
    }
    MPI_Win_free(&window);
    if (me == 0) result(all);
    MPI_Finalize();
    return 0;
}

package mqlog.interop;

import java.io.BufferedOutputStream;
import java.io.PrintStream;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.apache.rocketmq.store.DefaultMessageStore;

/** A command line over RocketMQ's own store; see {@link Options#USAGE}. JSON lines go to standard output, all else to standard error. */
public final class Tool {
    private static final long CATCH_UP_MS = 60_000;

    private Tool() {
    }

    public static void main(String[] arguments) {
        PrintStream out = new PrintStream(new BufferedOutputStream(System.out, 1 << 16), false, java.nio.charset.StandardCharsets.UTF_8);
        // RocketMQ's logging writes where it likes: standard output belongs to the lines.
        System.setOut(System.err);
        try {
            run(Options.parse(arguments), out);
            out.flush();
            System.err.flush();
            // Some versions leave threads behind that would keep the machine running.
            Runtime.getRuntime().halt(0);
        } catch (Throwable failure) {
            failure.printStackTrace();
            if (failure instanceof ArrayIndexOutOfBoundsException || failure instanceof IllegalArgumentException) {
                System.err.println(Options.USAGE);
            }
            Runtime.getRuntime().halt(1);
        }
    }

    private static void run(Options options, PrintStream out) throws Exception {
        // When the tool is to die, dispatch stops early, so that queues and index lag behind the log.
        AtomicLong dispatches = new AtomicLong(Long.MAX_VALUE);
        DefaultMessageStore store = Release.create(options.config());
        store.getDispatcherList().addFirst(request -> {
            while (dispatches.decrementAndGet() < 0) {
                LockSupport.parkNanos(Long.MAX_VALUE);
            }
        });
        if (!store.load()) {
            throw new IllegalStateException("the store does not load");
        }
        long end = store.getMaxPhyOffset();
        store.start();
        catchUp(store);
        if (options.read || options.command.equals("read")) {
            new Reader(store, out, end, options.logFileBytes()).read();
        }
        if (!options.command.equals("read")) {
            if (options.kill) {
                dispatches.set(options.count * 3L / 4);
            }
            new Writer(store, out).write(options.seed, options.count);
        }
        if (options.kill) {
            out.flush();
            Runtime.getRuntime().halt(0);
        }
        catchUp(store);
        store.shutdown();
    }

    private static void catchUp(DefaultMessageStore store) throws InterruptedException {
        for (long deadline = System.currentTimeMillis() + CATCH_UP_MS; store.dispatchBehindBytes() > 0; Thread.sleep(2)) {
            if (System.currentTimeMillis() > deadline) {
                throw new IllegalStateException("dispatch does not catch up: " + store.dispatchBehindBytes() + " bytes behind");
            }
        }
    }
}

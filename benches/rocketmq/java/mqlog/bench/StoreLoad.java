package mqlog.bench;

import java.io.PrintStream;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.config.FlushDiskType;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/**
 * Puts messages into RocketMQ's own store, as {@code examples/load} does into mqlog's: the same topic, bodies and keys, as many threads,
 * each putting one message after the other was stored. Everything is at RocketMQ's defaults but the folder, the flushing that is asked
 * for, and what would refuse or delete because the machine's disk is full. One line of JSON goes to standard output.
 */
public final class StoreLoad {
    private static final String USAGE = "usage: STORE PRODUCERS BODY_BYTES async|sync MESSAGES WARM_UP_MESSAGES";
    private static final String TOPIC = "load";
    private static final long CATCH_UP_MS = 120_000;

    private final DefaultMessageStore store;
    private final int producers;
    private final byte[] body;
    private final SocketAddress host = new InetSocketAddress("127.0.0.1", 10911);
    private final AtomicLong refused = new AtomicLong();

    private StoreLoad(DefaultMessageStore store, int producers, int bodyBytes) {
        this.store = store;
        this.producers = producers;
        body = new byte[bodyBytes];
        for (int at = 0; at < bodyBytes; at++) {
            body[at] = (byte) (at % 251);
        }
    }

    public static void main(String[] arguments) {
        PrintStream out = System.out;
        // RocketMQ's logging writes where it likes: standard output belongs to the result.
        System.setOut(System.err);
        int status = 1;
        try {
            out.println(run(arguments));
            status = 0;
        } catch (ArrayIndexOutOfBoundsException | NumberFormatException wrong) {
            System.err.println(USAGE);
            status = 2;
        } catch (Throwable failure) {
            failure.printStackTrace();
        }
        out.flush();
        // The store leaves threads behind that would keep the machine running.
        Runtime.getRuntime().halt(status);
    }

    private static String run(String[] arguments) throws Exception {
        String folder = arguments[0];
        int producers = Integer.parseInt(arguments[1]);
        int bodyBytes = Integer.parseInt(arguments[2]);
        boolean sync = arguments[3].equals("sync");
        long messages = Long.parseLong(arguments[4]);
        long warmUp = Long.parseLong(arguments[5]);
        DefaultMessageStore store = new DefaultMessageStore(config(folder, sync), new BrokerStatsManager("load", false), null,
            new BrokerConfig(), new ConcurrentHashMap<>());
        if (!store.load()) {
            throw new IllegalStateException("the store does not load");
        }
        store.start();
        StoreLoad load = new StoreLoad(store, producers, bodyBytes);
        // Java compiles what is hot; a broker that runs has done so.
        load.put(warmUp);
        load.waitUntilQuiet();
        load.refused.set(0);
        long took = load.put(messages);
        double seconds = took / 1e9;
        String line = String.format(Locale.ROOT, "{\"messages\":%d,\"seconds\":%.6f,\"msgs_per_s\":%.1f,\"mb_per_s\":%.3f,\"refused\":%d}",
            messages, seconds, messages / seconds, messages / seconds * bodyBytes / 1e6, load.refused.get());
        store.shutdown();
        return line;
    }

    private static MessageStoreConfig config(String folder, boolean sync) {
        MessageStoreConfig config = new MessageStoreConfig();
        config.setStorePathRootDir(folder);
        config.setStorePathCommitLog(folder + "/commitlog");
        config.setFlushDiskType(sync ? FlushDiskType.SYNC_FLUSH : FlushDiskType.ASYNC_FLUSH);
        config.setHaListenPort(0);
        config.setDiskMaxUsedSpaceRatio(95);
        config.setCleanFileForciblyEnable(false);
        return config;
    }

    /** Puts by all producers together; returns how many nanoseconds that took. */
    private long put(long messages) throws Exception {
        CountDownLatch begin = new CountDownLatch(1);
        List<Throwable> failures = new ArrayList<>();
        List<Thread> threads = new ArrayList<>();
        for (int number = 0; number < producers; number++) {
            long share = messages / producers + (number < messages % producers ? 1 : 0);
            long firstKey = (long) number << 48;
            Thread thread = new Thread(() -> {
                try {
                    begin.await();
                    produce(share, firstKey);
                } catch (Throwable failure) {
                    synchronized (failures) {
                        failures.add(failure);
                    }
                }
            }, "producer" + number);
            thread.start();
            threads.add(thread);
        }
        long start = System.nanoTime();
        begin.countDown();
        for (Thread thread : threads) {
            thread.join();
        }
        long took = System.nanoTime() - start;
        if (!failures.isEmpty()) {
            throw new IllegalStateException(failures.get(0));
        }
        return took;
    }

    private void produce(long share, long firstKey) throws Exception {
        for (long number = 0; number < share; number++) {
            MessageExtBrokerInner message = new MessageExtBrokerInner();
            message.setTopic(TOPIC);
            message.setQueueId(0);
            message.setBody(body);
            message.setBornTimestamp(System.currentTimeMillis());
            message.setBornHost(host);
            message.setStoreHost(host);
            message.setKeys(key(firstKey | number));
            message.setPropertiesString(MessageDecoder.messageProperties2String(message.getProperties()));
            PutMessageResult result = store.putMessage(message);
            while (!result.isOk()) {
                // A store whose page cache is busy refuses for a while.
                refused.incrementAndGet();
                Thread.sleep(1);
                result = store.putMessage(message);
            }
        }
    }

    /** A number in hex, 16 digits, as mqlog's side makes it. */
    private static String key(long number) {
        char[] digits = new char[16];
        for (int at = 15; at >= 0; at--) {
            digits[at] = Character.forDigit((int) (number & 15), 16);
            number >>>= 4;
        }
        return new String(digits);
    }

    /** Waits until everything is dispatched and on disk. */
    private void waitUntilQuiet() throws InterruptedException {
        long deadline = System.currentTimeMillis() + CATCH_UP_MS;
        while (store.dispatchBehindBytes() > 0 || store.remainHowManyDataToFlush() > 0) {
            if (System.currentTimeMillis() > deadline) {
                throw new IllegalStateException("the store does not catch up");
            }
            Thread.sleep(20);
        }
        Thread.sleep(500);
    }
}

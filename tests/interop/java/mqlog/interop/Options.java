package mqlog.interop;

import org.apache.rocketmq.store.config.FlushDiskType;
import org.apache.rocketmq.store.config.MessageStoreConfig;

/** The command line: {@code COMMAND STORE [SEED COUNT] [options]}. */
final class Options {
    static final String USAGE = "usage: write STORE SEED COUNT | append STORE SEED COUNT [--read] | read STORE\n"
        + "  [--kill] [--commit-log-file-bytes N] [--queue-file-entries N] [--index-slots N] [--index-entries N]\n"
        + "  [--record-crc on|off] [--flush sync|async]";

    String command;
    String store;
    long seed;
    int count;
    boolean kill;
    boolean read;
    private int logFileBytes = 1 << 30;
    private int queueFileEntries = 300_000;
    private int indexSlots = 5_000_000;
    private int indexEntries = 20_000_000;
    private boolean recordCrc;
    private boolean sync;

    static Options parse(String[] arguments) {
        Options options = new Options();
        int at = 0;
        options.command = arguments[at++];
        options.store = arguments[at++];
        if (!options.command.equals("read")) {
            options.seed = Long.parseLong(arguments[at++]);
            options.count = Integer.parseInt(arguments[at++]);
        }
        while (at < arguments.length) {
            String name = arguments[at++];
            switch (name) {
                case "--kill":
                    options.kill = true;
                    break;
                case "--read":
                    options.read = true;
                    break;
                default:
                    options.set(name, arguments[at++]);
            }
        }
        return options;
    }

    private void set(String name, String value) {
        switch (name) {
            case "--commit-log-file-bytes":
                logFileBytes = Integer.parseInt(value);
                break;
            case "--queue-file-entries":
                queueFileEntries = Integer.parseInt(value);
                break;
            case "--index-slots":
                indexSlots = Integer.parseInt(value);
                break;
            case "--index-entries":
                indexEntries = Integer.parseInt(value);
                break;
            case "--record-crc":
                recordCrc = value.equals("on");
                break;
            case "--flush":
                sync = value.equals("sync");
                break;
            default:
                throw new IllegalArgumentException(name);
        }
    }

    int logFileBytes() {
        return logFileBytes;
    }

    /** RocketMQ's defaults but for sizes, the port, and everything that deletes or refuses because the machine's disk is full. */
    MessageStoreConfig config() {
        MessageStoreConfig config = new MessageStoreConfig();
        config.setStorePathRootDir(store);
        config.setStorePathCommitLog(store + "/commitlog");
        config.setMappedFileSizeCommitLog(logFileBytes);
        config.setMappedFileSizeConsumeQueue(queueFileEntries * 20);
        config.setMaxHashSlotNum(indexSlots);
        config.setMaxIndexNum(indexEntries);
        config.setFlushDiskType(sync ? FlushDiskType.SYNC_FLUSH : FlushDiskType.ASYNC_FLUSH);
        config.setHaListenPort(0);
        config.setDiskMaxUsedSpaceRatio(95);
        config.setCleanFileForciblyEnable(false);
        config.setFileReservedTime(24 * 365 * 50);
        config.setCleanResourceInterval(Integer.MAX_VALUE);
        config.setMaxMsgsNumBatch(1_000_000);
        Release.recordCrc(config, recordCrc);
        return config;
    }
}

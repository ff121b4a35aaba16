package mqlog.bench;

import java.io.IOException;
import java.io.PrintStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import org.apache.rocketmq.auth.config.AuthConfig;
import org.apache.rocketmq.broker.BrokerController;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.namesrv.NamesrvConfig;
import org.apache.rocketmq.namesrv.NamesrvController;
import org.apache.rocketmq.remoting.netty.NettyClientConfig;
import org.apache.rocketmq.remoting.netty.NettyServerConfig;
import org.apache.rocketmq.store.config.FlushDiskType;
import org.apache.rocketmq.store.config.MessageStoreConfig;

/**
 * RocketMQ's name server and broker in one process, as {@code mini_broker} is: on ports of this machine alone, with one line on standard
 * output when they are ready. Everything is at RocketMQ's defaults but the folder, the flushing that is asked for, the addresses, no
 * replication, and what would refuse or delete because the machine's disk is full.
 */
public final class Broker {
    private static final String USAGE = "usage: STORE async|sync";
    private static final String HOST = "127.0.0.1";

    private Broker() {
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 2) {
            System.err.println(USAGE);
            System.exit(2);
        }
        PrintStream out = System.out;
        // RocketMQ's logging writes where it likes: standard output belongs to the line.
        System.setOut(System.err);
        int namesrvPort = startNamesrv(arguments[0]);
        int brokerPort = freePort();
        BrokerController broker = new BrokerController(brokerConfig(namesrvPort), network(brokerPort), new NettyClientConfig(),
            storeConfig(arguments[0], arguments[1].equals("sync")), authConfig(arguments[0]));
        if (!broker.initialize()) {
            throw new IllegalStateException("the broker does not start");
        }
        broker.start();
        out.printf("RocketMQ is ready: name server %s:%d, broker %s:%d%n", HOST, namesrvPort, HOST, brokerPort);
        out.flush();
    }

    private static int startNamesrv(String folder) throws Exception {
        NamesrvConfig config = new NamesrvConfig();
        config.setRocketmqHome(folder);
        config.setKvConfigPath(folder + "/kvConfig.json");
        NettyServerConfig network = network(freePort());
        NamesrvController namesrv = new NamesrvController(config, network);
        if (!namesrv.initialize()) {
            throw new IllegalStateException("the name server does not start");
        }
        namesrv.start();
        return network.getListenPort();
    }

    private static NettyServerConfig network(int port) {
        NettyServerConfig config = new NettyServerConfig();
        config.setBindAddress(HOST);
        config.setListenPort(port);
        return config;
    }

    private static BrokerConfig brokerConfig(int namesrvPort) {
        BrokerConfig config = new BrokerConfig();
        config.setBrokerName("broker-a");
        config.setBrokerIP1(HOST);
        config.setBrokerIP2(HOST);
        config.setNamesrvAddr(HOST + ":" + namesrvPort);
        return config;
    }

    private static MessageStoreConfig storeConfig(String folder, boolean sync) {
        MessageStoreConfig config = new MessageStoreConfig();
        config.setStorePathRootDir(folder);
        config.setStorePathCommitLog(folder + "/commitlog");
        config.setFlushDiskType(sync ? FlushDiskType.SYNC_FLUSH : FlushDiskType.ASYNC_FLUSH);
        config.setDiskMaxUsedSpaceRatio(95);
        config.setCleanFileForciblyEnable(false);
        return config;
    }

    private static AuthConfig authConfig(String folder) {
        AuthConfig config = new AuthConfig();
        config.setConfigName("broker-a");
        config.setClusterName("DefaultCluster");
        config.setAuthConfigPath(folder + "/auth");
        return config;
    }

    /** A port that is free, as is the one two below, where a broker listens too. */
    private static int freePort() throws IOException {
        InetAddress host = InetAddress.getByName(HOST);
        while (true) {
            try (ServerSocket upper = new ServerSocket(0, 1, host); ServerSocket lower = new ServerSocket(upper.getLocalPort() - 2, 1, host)) {
                return upper.getLocalPort();
            } catch (IOException taken) {
                continue;
            }
        }
    }
}
